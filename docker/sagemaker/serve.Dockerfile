# The serving container for SageMaker: what docker/serving/Dockerfile builds, behind /ping and /invocations.
#   docker build -f docker/serving/Dockerfile -t dermloop/serving:0.1.0 .
#   docker build -f docker/sagemaker/serve.Dockerfile --build-arg BASE=dermloop/serving:0.1.0 -t dermloop/sagemaker-serving:0.1.0 .
ARG BASE=dermloop/serving:0.1.0
FROM ${BASE}
LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true
# SageMaker unpacks the model into /opt/ml/model, which only root may read, and says `serve`.
USER root
ENV DERMLOOP_ML_MODELS=/opt/ml/model \
    DERMLOOP_ML_HOME=/tmp/dermloop
WORKDIR /opt/ml
EXPOSE 8080
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "ml_backend.sagemaker"]
CMD ["serve"]
