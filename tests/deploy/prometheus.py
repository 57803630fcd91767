"""Questions to a Prometheus server."""

import json
import urllib.error
import urllib.parse
import urllib.request

TIMEOUT_S = 5
STARTING = 503


class Prometheus:
    def __init__(self, port):
        self.port = port

    def get(self, path, **query):
        """What its API answers, or None while it does not serve yet."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == STARTING:
                return None
            raise AssertionError(f"{query}: {error.read().decode()}") from error
        except OSError:
            return None

    def ask(self, query):
        """The values of an instant query."""
        data = self.get("query", query=query)
        return [float(each["value"][1]) for each in data["result"]] if data else []

    def ask_by(self, label, query):
        """The same, by the values of a label."""
        data = self.get("query", query=query)
        return {each["metric"][label]: float(each["value"][1]) for each in data["result"]} if data else {}

    def series(self, query, begin, end, step_s):
        """Of a range query: each with "metric" and "values"."""
        return self.get("query_range", query=query, start=begin, end=end, step=step_s)["result"]

    def rules(self):
        """Every rule that is loaded, with its state."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]
