use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

const DAY: Duration = Duration::from_hours(24);

/// A CA in a folder of its own.
struct Ca {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            folder,
            issuer: Issuer::new(params, key),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `name.pem` and `name.key`, and `name.all` with both and the CA.
    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose, until: SystemTime) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        params.not_after = until.into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let ca = fs::read_to_string(self.file("ca.pem")).unwrap();
        let key = key.serialize_pem();
        fs::write(
            self.file(&format!("{name}.all")),
            [&certificate[..], &key, &ca].concat(),
        )
        .unwrap();
        fs::write(self.file(&format!("{name}.pem")), certificate).unwrap();
        fs::write(self.file(&format!("{name}.key")), key).unwrap();
    }

    fn server(&self, name: &str, until: SystemTime, asks: bool) -> ServerTls {
        self.sign(name, ExtendedKeyUsagePurpose::ServerAuth, until);
        ServerTls {
            certificate: self.file(&format!("{name}.pem")),
            key: self.file(&format!("{name}.key")),
            client_ca: asks.then(|| self.file("ca.pem")),
        }
    }

    fn client(&self, name: &str, until: SystemTime) -> ClientTls {
        self.sign(name, ExtendedKeyUsagePurpose::ClientAuth, until);
        ClientTls {
            identity: Some(self.file(&format!("{name}.all"))),
            ..ClientTls::default()
        }
    }

    fn trusting(&self) -> ClientTls {
        ClientTls {
            ca: Some(self.file("ca.pem")),
            ..ClientTls::default()
        }
    }
}

/// A server that says hello to one client.
async fn serve(tls: &ServerTls) -> (SocketAddr, JoinHandle<Result<(), String>>) {
    let server = Server::new(tls).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = server.accept(stream).await?;
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        Ok(())
    });
    (address, task)
}

/// What the client and the server say of their handshake.
async fn shake(client: &ClientTls, server: &ServerTls) -> (Result<String, String>, String) {
    let (address, task) = serve(server).await;
    let client = Client::new(client).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let heard = match client.open("edge.test", stream).await {
        Ok(mut stream) => {
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            Ok(text)
        }
        Err(reason) => Err(reason),
    };
    (heard, task.await.unwrap().err().unwrap_or_default())
}

#[tokio::test]
async fn both_know_each_other() {
    let (ca, until) = (Ca::new(), SystemTime::now() + DAY);
    let server = ca.server("edge.test", until, true);
    let (heard, said) = shake(&ca.client("device", until), &server).await;
    assert_eq!((heard.as_deref(), &said[..]), (Ok("hello"), ""));
    // Where the edge does not ask, a device needs only the CA; and another name can be said.
    let server = ca.server("other.test", until, false);
    let client = ClientTls {
        server_name: Some("other.test".to_owned()),
        ..ca.trusting()
    };
    assert_eq!(shake(&client, &server).await.0.as_deref(), Ok("hello"));
}

#[tokio::test]
async fn what_is_refused_is_explained_to_both() {
    // Each has the files of one edge.
    let (ca, other, aged) = (Ca::new(), Ca::new(), Ca::new());
    let (until, past) = (SystemTime::now() + DAY, SystemTime::now() - DAY);
    let good = |asks| ca.server("edge.test", until, asks);
    for (client, server, to_device, to_edge) in [
        (
            aged.trusting(),
            aged.server("edge.test", past, false),
            "the edge's certificate has expired on ",
            "it says that the certificate of this edge has expired",
        ),
        (
            ca.trusting(),
            ca.server("cloud.test", until, false),
            "is for cloud.test, not for edge.test: use one of its names in edge.url",
            "it does not accept the certificate of this edge",
        ),
        (
            other.trusting(),
            good(false),
            "is of no CA in /",
            "it does not accept the certificate of this edge",
        ),
        (
            ca.trusting(),
            good(true),
            "asks for a client certificate: say edge.tls.identity",
            "it showed no certificate",
        ),
        (
            ca.client("late", past),
            good(true),
            "this device's certificate has expired",
            "its certificate has expired on ",
        ),
        (
            ClientTls {
                identity: None,
                certificate: other.client("foreign", until).identity,
                key: Some(other.file("foreign.key")),
                ..ca.trusting()
            },
            good(true),
            "does not know the CA of this device's certificate",
            "its certificate is of no CA in tls.client_ca",
        ),
    ] {
        let (heard, said) = shake(&client, &server).await;
        let heard = heard.unwrap_err();
        assert!(
            heard.contains(to_device),
            "{heard:?} should say {to_device:?}"
        );
        assert!(said.contains(to_edge), "{said:?} should say {to_edge:?}");
    }
}

#[tokio::test]
async fn what_speaks_no_tls_is_told_so() {
    let ca = Ca::new();
    let until = SystemTime::now() + DAY;
    let (address, task) = serve(&ca.server("edge.test", until, false)).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let said = task.await.unwrap().unwrap_err();
    assert!(said.contains("does not speak TLS"), "{said}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        stream
    });
    let client = Client::new(&ca.trusting()).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let said = client.open("edge.test", stream).await.err().unwrap();
    assert!(
        said.contains("does not speak TLS: is edge.url right"),
        "{said}"
    );
    drop(server.await.unwrap());
}

#[test]
fn the_end_of_a_certificate_is_known() {
    let ca = Ca::new();
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let server = ca.server("edge.test", until, false);
    let expiry = expiry(&server.certificate).unwrap();
    assert_eq!(expiry.unix(), 4_000_000_000);
    assert!(!expiry.is_near());
    assert_eq!(expiry.to_string(), "Tue, 02 Oct 2096 07:06:40 GMT");
}

#[test]
fn unusable_files_are_named() {
    let ca = Ca::new();
    let until = SystemTime::now() + DAY;
    let good = ca.server("edge.test", until, true);
    ca.server("other.test", until, true);
    let server = |change: &dyn Fn(&mut ServerTls)| {
        let mut tls = good.clone();
        change(&mut tls);
        Server::new(&tls).err().unwrap().to_string()
    };
    for (said, says) in [
        (
            server(&|tls| tls.key = ca.file("none.key")),
            "none.key: No such file",
        ),
        (
            server(&|tls| tls.key = ca.file("ca.pem")),
            "ca.pem: no private key in it",
        ),
        (
            server(&|tls| tls.certificate = ca.file("edge.test.key")),
            "edge.test.key: no certificate in it",
        ),
        (
            server(&|tls| tls.key = ca.file("other.test.key")),
            "other.test.key: ",
        ),
        (
            Client::new(&ClientTls::default())
                .err()
                .unwrap()
                .to_string(),
            "say identity = ",
        ),
        (
            Client::new(&ClientTls {
                certificate: Some("c".into()),
                ..ca.trusting()
            })
            .err()
            .unwrap()
            .to_string(),
            "certificate and key go together",
        ),
        (
            Client::new(&ClientTls {
                identity: Some(ca.file("edge.test.pem")),
                ..ClientTls::default()
            })
            .err()
            .unwrap()
            .to_string(),
            "edge.test.pem: no private key in it",
        ),
    ] {
        assert!(said.contains(says), "{said:?} should say {says:?}");
    }
}
