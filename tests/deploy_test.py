"""What deploy/ repeats is what the sources say: the command, its options, the names of metrics, nginx's configuration.

usage: deploy_test.py SOURCES; made by ctest (deploy). No cluster is at hand: that Kubernetes does with the manifest
what its comments say is not tested.
"""
import pathlib
import re
import sys
import textwrap
import unittest

ROOT = pathlib.Path(sys.argv.pop(1))


def read(path):
    return (ROOT / path).read_text()


def only(pattern, text):
    """The one place that fits: its group, or its groups."""
    found = re.findall(pattern, text, re.MULTILINE)
    assert len(set(found)) == 1, f"{pattern}: {found}"
    return found[0]


class Deploy(unittest.TestCase):
    def setUp(self):
        self.manifest = read("deploy/kubernetes.yaml")
        self.documents = {(only(r"^kind: (\w+)", d), only(r"^metadata:\n  name: (\S+)", d)): d
                          for d in self.manifest.split("\n---\n")}
        self.servers = self.documents["StatefulSet", "ferry"]
        self.scaler = self.documents["HorizontalPodAutoscaler", "ferry"]

    def test_the_command_is_the_program_s(self):
        """An image's CMD gives way to args, and it has no ENTRYPOINT: without `command`, serve would be the program."""
        self.assertEqual(only(r"^ +command: \[(\S+)\]$", self.servers), "ferry")
        args = [a.strip(' "') for a in only(r"^ +args: \[(.*)\]$", self.servers).split(",")]
        self.assertEqual(args[0], "serve")
        sources = read("src/cli/serve_command.cc")
        for option in (a for a in args if a.startswith("--")):
            self.assertIn(f'"{option}"', sources)
        drain = args[args.index("--drain-seconds") + 1]
        grace = only(r"terminationGracePeriodSeconds: (\d+)", self.servers)
        before = only(r"command: \[sleep, \"(\d+)\"\]", self.servers)
        self.assertGreater(int(grace), int(drain) + int(before))

    def test_the_metric_is_one_that_the_server_gives(self):
        rule = read("deploy/prometheus-adapter.yaml")
        series = only(r"seriesQuery: '([^{]+)\{", rule)
        prefix, name = series.split(":")
        metrics = read("src/serve/metrics.cc")
        self.assertIn(f'"{prefix}:"', metrics)
        self.assertIn(f'one(prefix + "{name}"', metrics)
        shown = re.sub(only(r'matches: "(.*)"', rule), only(r'as: "(.*)"', rule).replace("${1}", r"\1"), series)
        self.assertEqual(only(r"metric: \{name: (\w+)\}", self.scaler), shown)

    def test_nginx_is_the_one_that_is_tested(self):
        """But for its servers, and who tells where they are."""
        def without_servers(text):
            text = re.sub(r"^ *(resolver|resolver_timeout) .*\n", "", text, flags=re.MULTILINE)
            return re.sub(r"^( *server )\S+?( resolve)?((?: \w+=\w+)+;\n)(?:\1.*\n)*", r"\1NAMES\3", text,
                          flags=re.MULTILINE)

        theirs = textwrap.dedent(self.documents["ConfigMap", "ferry-nginx"].split("default.conf: |\n")[1])
        ours = read("deploy/nginx.conf")
        ours = ours[ours.index("upstream ferry {"):]
        self.assertEqual(without_servers(ours).count("NAMES"), 2)
        self.assertEqual(without_servers(theirs).strip(), without_servers(ours).strip())

    def test_nginx_knows_every_replica(self):
        config = self.documents["ConfigMap", "ferry-nginx"]
        service = only(r"serviceName: (\S+)", self.servers)
        self.assertIn(("Service", service), self.documents)
        self.assertEqual(only(r"scaleTargetRef: \{.*kind: (\w+), name: ferry\}", self.scaler), "StatefulSet")
        names = [f"ferry-{i}.{service}.default.svc.cluster.local:8000"
                 for i in range(int(only(r"maxReplicas: (\d+)", self.scaler)))]
        for group in re.findall(r"^    upstream \w+ \{\n(.*?)^    \}", config, re.MULTILINE | re.DOTALL):
            self.assertEqual(re.findall(r"^ +server (\S+) resolve ", group, re.MULTILINE), names)

    def test_no_server_gets_more_than_it_answers_at_once(self):
        running = only(r"\brunning = (\d+)", read("src/cli/serve_command.cc"))
        for path in ("deploy/nginx.conf", "deploy/kubernetes.yaml"):
            self.assertEqual(only(r"\bmax_conns=(\d+)", read(path)), running)


if __name__ == "__main__":
    unittest.main()
