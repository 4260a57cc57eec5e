use super::*;

fn load(text: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("d.toml");
    std::fs::write(&file, text).unwrap();
    Config::load(&file, &[]).map_err(|error| {
        error
            .to_string()
            .replace(&format!("{}/", folder.path().display()), "")
    })
}

const GOOD: &str = r#"
admin = "127.0.0.1:0"
[listen]
reverse = ["127.0.0.1:0"]
[edge]
url = "http://edge:7100"
plaintext = true
token = "hush"
[codec]
bundle = "x"
[[route]]
name = "a"
path = "/v1/*"
"#;

#[test]
fn the_demos_configuration_is_good() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/demo/proxy-device.toml");
    let config = Config::load(&file, &[]).unwrap();
    assert_eq!(config.routes[0].name, "classify");
}

#[test]
fn the_reference_is_a_configuration() {
    let text = config::uncommented(&config::reference::<Config>());
    config::parse::<Config>(Path::new("reference.toml"), &text, &[]).unwrap();
}

#[test]
fn secrets_do_not_show() {
    let shown = format!("{:?}", load(GOOD).unwrap());
    assert!(!shown.contains("hush"), "{shown}");
}

#[test]
fn faults_of_the_edge_are_named() {
    named(&[
        (
            "plaintext = true",
            "",
            "edge.plaintext: an http URL is not encrypted",
        ),
        (
            "http://edge:7100",
            "ftp://edge",
            "d.toml:6:7: url: `ftp://edge` is no base URL, want http:// or https://host:port",
        ),
        (
            "http://edge:7100",
            "edge",
            "d.toml:6:7: url: `edge` is no base URL",
        ),
        (
            "url = \"http://edge:7100\"",
            "url = []",
            "d.toml:6:7: url: no base URL, want http:// or https://host:port",
        ),
        (
            "plaintext = true",
            "plaintext = true\nretry_share = -1.0",
            "edge.retry_share: must be from 0 to 10",
        ),
        (
            "url = \"http://edge:7100\"",
            "url = [\"http://edge:7100\", \"https://edge:7100\"]",
            "edge.url: all of them http, or all https",
        ),
        (
            "http://edge:7100",
            "https://edge:7100",
            "edge.plaintext: is for an http URL",
        ),
        (
            "http://edge:7100\"\nplaintext = true",
            "https://edge:7100\"",
            "edge.tls: say identity = ",
        ),
        (
            "plaintext = true",
            "plaintext = true\ntls = {}",
            "edge.tls: is for an https URL",
        ),
    ]);
}

#[test]
fn faults_are_named() {
    named(&[
        (
            "path = \"/v1/*\"",
            "path = \"v1\"",
            "route[0].path (a): must begin with /",
        ),
        (
            "path = \"/v1/*\"",
            "path = \"/**/x\"",
            "route[0].path (a): ** may only stand at the end",
        ),
        (
            "name = \"a\"",
            "name = \"a\"\nmethod = \"NO WAY\"",
            "route[0].method (a): is no HTTP method",
        ),
        (
            "name = \"a\"",
            "name = \"a\"\nverify = 2.0",
            "route[0].verify (a): must be a share of the requests, from 0 to 1",
        ),
        (
            "name = \"a\"",
            "name = \"a\"\nverify = 0.02\nidempotent = false",
            "route[0].verify (a): a request is sent twice to be compared",
        ),
        (
            "name = \"a\"",
            "name = \"a\"\nmin_agreement = 0.9",
            "route[0].min_agreement (a): nothing is compared; say verify = 0.02",
        ),
        (
            "name = \"a\"",
            "name = \"a\"\nmode = \"trust\"",
            "unknown variant `trust`",
        ),
        (
            "name = \"a\"",
            "name = \"a\"\ncolour = 1",
            "d.toml:13:1: unknown field `colour`",
        ),
        (
            "reverse = [\"127.0.0.1:0\"]",
            "",
            "listen: no address; say reverse, forward or transparent",
        ),
        (
            "[[route]]",
            "[[destination]]\nhosts = []\n[[route]]",
            "destination[0].hosts: no host",
        ),
        (
            "[[route]]",
            "[[destination]]\nhosts = [\"model/x\"]\n[[route]]",
            "`model/x` is no host, want name:port or address:port",
        ),
        (
            "[[route]]",
            "[[destination]]\nhosts = [\"m\"]\n[[destination]]\nhosts = [\"M.:80\"]\n[[route]]",
            "destination[1].hosts: m:80 stands in an earlier one",
        ),
        (
            "bundle = \"x\"",
            "bundle = \"x\"\nthreads = 0",
            "codec.threads: must be at least 1",
        ),
    ]);
}

/// Each of the faults, put in place of something in the good configuration, is told.
fn named(faults: &[(&str, &str, &str)]) {
    for (from, to, says) in faults {
        let error = load(&GOOD.replace(from, to)).unwrap_err();
        assert!(error.contains(says), "{error:?} should say {says:?}");
    }
}
