"""The protocol's messages: protoc makes them from proto/client.proto, in build/, when that has changed."""
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
GENERATED = ROOT / "build" / "integration"


def generate():
    GENERATED.mkdir(parents=True, exist_ok=True)
    source, made = ROOT / "proto" / "client.proto", GENERATED / "client_pb2.py"
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["protoc", f"-I{source.parent}", f"--python_out={GENERATED}", str(source)], check=True)
    sys.path.insert(0, str(GENERATED))


generate()
import client_pb2 as pb  # noqa: E402, F401 - it exists only now
