"""What `label-studio-ml start ml_backend` runs: the same application as `dermloop serve`."""

import argparse
import sys
from pathlib import Path

if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from ml_backend.settings import read_settings
from ml_backend.wsgi import serve


def main() -> None:
    """Serves under the options that label-studio-ml passes on."""
    parser = argparse.ArgumentParser(description="dermloop's ML backend")
    parser.add_argument("-p", "--port", type=int, help="port to listen on")
    parser.add_argument("--host", help="address to listen on")
    given = parser.parse_args()
    serve(read_settings(host=given.host, port=given.port))


if __name__ == "__main__":
    main()
