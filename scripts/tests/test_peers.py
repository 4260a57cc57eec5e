"""What scripts/peers takes for a good answer."""

import re
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "peers"))

from answers import Answer, compare  # noqa: E402
from cases import PEERS, photo_path  # noqa: E402
from environments import ROOT  # noqa: E402
from metrics import Metrics  # noqa: E402

BEFORE = {'sidecod_device_requests_total{route="r",outcome="code"}': 1.0, "sidecod_device_app_bytes_total": 10.0}
AFTER = {
    'sidecod_device_requests_total{route="r",outcome="code"}': 1.0,
    'sidecod_device_requests_total{route="r",outcome="passthrough"}': 1.0,
    'sidecod_device_not_coded_total{route="r",reason="no_input"}': 1.0,
    'sidecod_device_link_bytes_total{direction="sent"}': 7.0,
    'sidecod_device_link_bytes_total{direction="received"}': 9.0,
    "sidecod_device_app_bytes_total": 25.0,
}


class Compare(unittest.TestCase):
    def test_the_first_class_counts(self):
        bear = Answer.read("0.990 polar bear\n0.002 Arctic fox\n")
        self.assertTrue(compare(bear, Answer.read("0.700 polar bear\n"), False)[0])
        self.assertFalse(compare(bear, Answer.read("0.700 Arctic fox\n"), False)[0])
        self.assertFalse(compare(bear, Answer.read(""), False)[0])

    def test_the_form_of_json_counts(self):
        lines = "\n0.990 polar bear\n"
        bear = Answer.read('{"best": [{"p": 0.99, "class": "polar bear"}]}' + lines)
        same = Answer.read('{"best":[{"p":0.7,"class":"bear"}]}' + lines)
        self.assertTrue(compare(bear, same, False)[0])
        for other in ('{"best":[{"class":"bear","p":0.7}]}', '{"best":[{"p":1,"class":"bear"}]}', '{"best":[]}'):
            self.assertFalse(compare(bear, Answer.read(other + lines), False)[0], other)
        self.assertFalse(compare(bear, Answer.read("0.990 polar bear\n"), False)[0])

    def test_most_letters_of_a_text_count(self):
        text = Answer.read("0.99 NORTHERN PARCEL\n0.98 Order 58219-QX\n")
        self.assertTrue(compare(text, Answer.read("0.90 NORTHERN PARCEL\n0.98 Order 58219-OX\n"), True)[0])
        self.assertFalse(compare(text, Answer.read("0.90 NORTHERN PARCEL\n"), True)[0])

    def test_text_needs_no_probabilities(self):
        said = Answer.read("he was not an ill disposed young man\n")
        self.assertEqual(said.texts(), ["he was not an ill disposed young man"])
        self.assertTrue(compare(said, Answer.read("he was not an ill disposed young men\n"), True)[0])
        self.assertFalse(compare(said, Answer.read("she was\n"), True)[0])


class Added(unittest.TestCase):
    def test_only_what_one_request_added_counts(self):
        added = Metrics(AFTER) - Metrics(BEFORE)
        self.assertEqual(added.outcomes(), {"passthrough": 1, "no_input": 1})
        self.assertEqual(added.sum("sidecod_device_link_bytes_total", direction="sent"), 7)
        self.assertEqual(added.sum("sidecod_device_app_bytes_total"), 15)

    def test_the_models_of_a_server_are_told_apart(self):
        before = Metrics({'request_predict_seconds_count{model_name="file"}': 1.0})
        after = {
            'request_predict_seconds_count{model_name="file"}': 1.0,
            'request_predict_seconds_count{model_name="tail"}': 1.0,
            'request_predict_seconds_sum{model_name="tail"}': 2.0,
        }
        self.assertEqual((Metrics(after) - before).models(), {"tail": 1})


class Cases(unittest.TestCase):
    def test_what_a_case_names_is_there(self):
        for peer in PEERS:
            folder = ROOT / "examples" / peer.folder
            for name in ("proxy-device.toml", "proxy-edge.toml", *(["interface.toml"] if peer.point else [])):
                self.assertTrue((folder / name).is_file(), folder / name)
            for request in peer.requests:
                self.assertTrue((ROOT / "examples" / request.client[0]).is_file(), request.client)
                for photo in request.photos:
                    self.assertTrue(photo_path(ROOT, photo).is_file(), photo)

    def test_every_way_in_is_tried(self):
        ways = {request.way for peer in PEERS for request in peer.requests}
        self.assertEqual(ways, {"reverse", "forward", "transparent"})

    def test_tables_name_the_versions_that_are_installed(self):
        for peer in PEERS:
            if not peer.packages:
                continue
            pins = (ROOT / "examples" / peer.example / "requirements.txt").read_text()
            # Without extras, as in name[http]==1.0.
            pins = dict(re.sub(r"\[.*\]", "", line).split("==") for line in pins.splitlines() if "==" in line)
            for said in {peer.server, peer.client, *(request.by for request in peer.requests)}:
                for name, version in re.findall(r"\b([a-z][\w-]+) (\d[\d.]*\d)", said):
                    self.assertEqual(pins.get(name), version, said)


if __name__ == "__main__":
    unittest.main()
