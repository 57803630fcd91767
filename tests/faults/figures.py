"""Figures with bars, as every measurement of this project prints them; the same goes to a JSON file."""
import json
import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Figures:
    def __init__(self):
        self.all = []
        self.short = []

    def add(self, name, value, unit, op=None, bar=None):
        """`op`: "<=", ">=" or "=="; a figure without a bar is only told. Returns whether it reaches its bar."""
        figure = {"name": name, "value": value, "unit": unit}
        text = f"figure {name} {value:.6g} {unit}"
        ok = True
        if op:
            ok = {"<=": value <= bar, ">=": value >= bar, "==": value == bar}[op]
            figure |= {"bar": {"op": op, "value": bar}, "ok": ok}
            text += f" bar {op} {bar:.6g} {'ok' if ok else 'short'}"
        self.all.append(figure)
        if not ok:
            self.short.append(name)
        print(text, flush=True)
        return ok

    def write(self, name, **more):
        """build/NAME.json, next to the programs that were tested."""
        path = pathlib.Path(os.environ.get("SIGNALBOX_BUILD", ROOT / "build")) / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        machine = {"cores": os.cpu_count(), "load_average": os.getloadavg(), "kernel": os.uname().release}
        path.write_text(json.dumps({"ok": not self.short, "machine": machine, "figures": self.all, **more}, indent=2) + "\n")
