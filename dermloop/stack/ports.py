"""The ports of the local programs, and who sits on one that is taken."""

from __future__ import annotations

import socket
from dataclasses import dataclass, fields

import psutil

from dermloop.errors import PortError

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the three programs that answer requests listen, on the loopback interface."""

    label_studio: int = 8080
    backend: int = 9090
    review: int = 9091

    def require_free(self) -> None:
        """Raises PortError naming the first port that is out of range, used twice or taken, and the way out."""
        seen: dict[int, str] = {}
        for field in fields(self):
            port, option = getattr(self, field.name), f"--port-{field.name.replace('_', '-')}"
            if not 1 <= port <= 65535:
                raise PortError(option, port, "a port number", "Choose one from 1024 to 65535.")
            if port in seen:
                raise PortError(f"{option} and {seen[port]}", port, "a port for each", "Change one of them.")
            seen[port] = option
            _require_free(port, option)


def free_ports() -> Ports:
    """Three ports that nothing listens on at this moment."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in fields(Ports)]
    try:
        for sock in sockets:
            sock.bind((HOST, 0))
        return Ports(*(int(sock.getsockname()[1]) for sock in sockets))
    finally:
        for sock in sockets:
            sock.close()


def _require_free(port: int, option: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
        except PermissionError as error:
            cure = f"Choose another port: {option} PORT"
            raise PortError(f"port {port}", "for administrators only", "one above 1023", cure) from error
        except OSError as error:
            cure = f"Stop that program, or choose another port: {option} {port + 1}"
            raise PortError(f"port {port}", f"taken by {_holder(port)}", "a free port", cure) from error


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        pass
    return "another program"
