"""What proxy-device counts."""

import re
import urllib.request


class Metrics:
    """The series of one moment; `-` gives what was added since another."""

    def __init__(self, series):
        self.series = series

    @classmethod
    def read(cls, admin):
        with urllib.request.urlopen(f"http://{admin}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return cls({name: float(value) for name, value in pairs})

    def __sub__(self, earlier):
        return Metrics({name: value - earlier.series.get(name, 0) for name, value in self.series.items()})

    def sum(self, name, **labels):
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        return sum(
            value
            for series, value in self.series.items()
            if series.partition("{")[0] == name and wanted <= set(re.findall(r'\w+="[^"]*"', series))
        )

    def outcomes(self):
        """How requests of all routes crossed, and why not as a code: name to count."""
        counted = {}
        for series, value in self.series.items():
            label = re.search(r'(?:outcome|reason)="([^"]*)"', series)
            name = series.partition("{")[0]
            if value and name in ("sidecod_device_requests_total", "sidecod_device_not_coded_total"):
                counted[label[1]] = int(value)
        return counted
