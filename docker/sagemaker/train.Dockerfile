# The training container for SageMaker: what docker/training/Dockerfile builds, behind SageMaker's contract.
#   docker build -f docker/training/Dockerfile --build-arg FLAVOUR=cuda -t dermloop/training:0.1.0-cuda .
#   docker build -f docker/sagemaker/train.Dockerfile --build-arg BASE=dermloop/training:0.1.0-cuda -t dermloop/sagemaker-training:0.1.0 .
ARG BASE=dermloop/training:0.1.0-cuda
FROM ${BASE}
# SageMaker mounts /opt/ml for root and says `train`.
USER root
WORKDIR /opt/ml
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "training.sagemaker"]
CMD ["train"]
