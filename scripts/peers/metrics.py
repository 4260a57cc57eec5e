"""What proxy-device and model servers count."""

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
        crossed = self.counted("sidecod_device_requests_total", "outcome")
        return crossed | self.counted("sidecod_device_not_coded_total", "reason")

    def models(self):
        """How often each model of kserve ran: name to count."""
        return self.counted("request_predict_seconds_count", "model_name")

    def counted(self, name, label):
        """What a counter has counted: value of a label to count."""
        pattern = re.compile(rf'{name}{{.*\b{label}="([^"]*)"')
        found = ((pattern.match(series), value) for series, value in self.series.items() if value)
        return {match[1]: int(value) for match, value in found if match}
