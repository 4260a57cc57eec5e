//! The built program between an HTTP/2 client and a model server that remembers what it was asked.

#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part; a test fails by panicking

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sidecod_sidecar::listen::{self, ServerLimits};
use sidecod_sidecar::shutdown::{Shutdown, Trigger};
use sidecod_sidecar::{Body, body};
use sidecod_wire::bundle::{Bundle, MANIFEST, TABLES};
use sidecod_wire::entropy::{self, Symbols};
use sidecod_wire::frame::{self, Frame, PictureSlot, Slot};
use sidecod_wire::media::{Color, MediaType};
use sidecod_wire::slot::{Form, Skeleton, Text};
use tokio::net::{TcpListener, TcpStream};

/// The bundle that ships.
pub fn bundle_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../onnx/codecs/photo-v0")
}

pub fn bundle() -> Bundle {
    let file = |name| std::fs::read(bundle_folder().join(name)).unwrap();
    Bundle::parse(&file(MANIFEST), &file(TABLES)).unwrap()
}

/// Symbols that a picture of this size might have, the same at every call.
pub fn symbols(bundle: &Bundle, width: u32, height: u32) -> Symbols {
    let (rows, columns) = bundle.manifest.latent_size(width, height);
    let mut symbols = Symbols::zeros(bundle.manifest.channels, rows, columns);
    for (at, symbol) in symbols.data.iter_mut().enumerate() {
        *symbol = ((at / 7) % 4) as i16;
    }
    symbols
}

pub fn slot(bundle: &Bundle, media: MediaType, width: u32, height: u32) -> Slot {
    Slot::Picture(PictureSlot {
        form: Form::File {
            media,
            text: Text::Raw,
        },
        width,
        height,
        color: Color::Rgb,
        orientation: 1,
        max_side: 0,
        code: entropy::encode(&symbols(bundle, width, height), &bundle.tables[0]).unwrap(),
    })
}

/// The picture of a slot.
pub fn coded(slot: &mut Slot) -> &mut PictureSlot {
    let Slot::Picture(picture) = slot else {
        panic!("no picture")
    };
    picture
}

/// A frame around one picture that is the whole body.
pub fn frame(bundle: &Bundle, media: MediaType, width: u32, height: u32) -> Frame {
    Frame {
        bundle: bundle.digest.short(),
        quality: 0,
        content_type: Some(media.mime().to_owned()),
        skeleton: Skeleton {
            offsets: vec![0],
            ..Skeleton::default()
        },
        slots: vec![slot(bundle, media, width, height)],
    }
}

/// What a model server was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A model server on a port of its own.
pub struct Upstream {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    abandoned: Arc<Mutex<usize>>,
    _trigger: Trigger,
}

struct OnDrop(Arc<Mutex<usize>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, shutdown) = Shutdown::new();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let abandoned = Arc::<Mutex<usize>>::default();
        let state = (asked.clone(), abandoned.clone());
        let service = listen::service(move |request| upstream(state.clone(), request));
        tokio::spawn(async move {
            listen::http1(listener, &ServerLimits::default(), service, shutdown).await;
        });
        Self {
            address,
            asked,
            abandoned,
            _trigger: trigger,
        }
    }

    /// The last request to `/record`.
    pub fn last(&self) -> Asked {
        self.asked.lock().unwrap().last().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Calls of `/never` that ended without an answer.
    pub fn abandoned(&self) -> usize {
        *self.abandoned.lock().unwrap()
    }
}

type State = (Arc<Mutex<Vec<Asked>>>, Arc<Mutex<usize>>);

async fn upstream((asked, abandoned): State, request: Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/never" => {
            let _guard = OnDrop(abandoned);
            std::future::pending().await
        }
        "/echo" => Response::new(body::streamed(request.into_body())),
        "/redirect" => Response::builder()
            .status(302)
            .header("location", "/record")
            .body(body::empty())
            .unwrap(),
        "/trailers" => {
            let (mut sender, channel) = Channel::<Bytes, body::BoxError>::new(4);
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "7".parse().unwrap());
            sender.send_data("first ".into()).await.unwrap();
            sender.send_data("second".into()).await.unwrap();
            sender.send_trailers(trailers).await.unwrap();
            Response::builder()
                .header("trailer", "x-sum")
                .body(body::streamed(channel))
                .unwrap()
        }
        _ => {
            let (parts, incoming) = request.into_parts();
            let body = incoming.collect().await.unwrap().to_bytes();
            asked.lock().unwrap().push(Asked {
                method: parts.method,
                uri: parts.uri,
                headers: parts.headers,
                body,
            });
            Response::builder()
                .header("x-answer", "yes")
                .header("sidecod-error", "not-the-models")
                .header("connection", "x-hop")
                .header("x-hop", "1")
                .header("server-timing", "model;dur=5")
                .body(body::full("the answer"))
                .unwrap()
        }
    }
}

/// The built program, running.
pub struct Edge {
    child: Child,
    pub data: SocketAddr,
    pub admin: SocketAddr,
    _folder: tempfile::TempDir,
}

/// A configuration with the shipped bundle, and `more` behind it.
pub fn config(upstream: SocketAddr, more: &str, upstream_more: &str) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nplaintext = true\nbundles = [{:?}]\n\
         {more}\n[[upstream]]\nname = \"default\"\nurl = \"http://{upstream}\"\n{upstream_more}\n",
        bundle_folder().display().to_string()
    )
}

pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxy-edge"));
    // It must find libtorch by itself.
    command.env_clear();
    command
}

impl Edge {
    /// Starts the program and returns as soon as it listens.
    pub fn spawn(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edge.toml");
        std::fs::write(&file, config).unwrap();
        let mut child = program()
            .arg("--config")
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = |role: &str| {
            let word = line.split_whitespace().find_map(|w| w.strip_prefix(role));
            word.unwrap_or_else(|| panic!("no {role} in {line:?}"))
                .parse()
                .unwrap()
        };
        let (data, admin) = (address("data="), address("admin="));
        Self {
            child,
            data,
            admin,
            _folder: folder,
        }
    }

    /// Starts the program and returns when it is ready.
    pub async fn start(upstream: SocketAddr, more: &str, upstream_more: &str) -> Self {
        let edge = Self::spawn(&config(upstream, more, upstream_more));
        let deadline = Instant::now() + Duration::from_mins(2);
        while edge.admin("/ready").await.0 != 200 {
            assert!(Instant::now() < deadline, "not ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        edge
    }

    /// Status and text of a page of the admin port.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        let stream = TcpStream::connect(self.admin).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = Request::builder()
            .uri(path)
            .header("host", "admin")
            .body(Full::new(Bytes::new()))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(text.to_vec()).unwrap())
    }

    pub async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.data).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        Client(sender)
    }

    /// A value of the process' status, in KiB.
    pub fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Asks it to end, and gives its exit code.
    pub fn stop(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        Command::new("kill").arg(id).status().unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A device's connection.
#[derive(Clone)]
pub struct Client(SendRequest<Body>);

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// Status, and the kind of the sidecar's own error.
    pub fn error(&self) -> (u16, &str) {
        let kind = self.headers.get("sidecod-error");
        (self.status, kind.map_or("", |kind| kind.to_str().unwrap()))
    }
}

impl Client {
    pub async fn send(&self, request: Request<Body>) -> Result<Answer, hyper::Error> {
        let answer = self.begin(request).await?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?;
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            trailers: body.trailers().cloned(),
            body: body.to_bytes(),
        })
    }

    /// Sends a request and returns with the head of the answer.
    pub async fn begin(&self, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
        let mut sender = self.0.clone();
        sender.ready().await?;
        sender.send_request(request).await
    }

    pub async fn frame(&self, path: &str, frame: &Frame) -> Answer {
        self.send(framed(path, frame.encode())).await.unwrap()
    }
}

/// A request whose body is said to be a frame.
pub fn framed(path: &str, body: Vec<u8>) -> Request<Body> {
    Request::builder()
        .method("POST")
        .uri(format!("http://app.example:8080{path}"))
        .header("content-type", frame::CONTENT_TYPE)
        .header("content-length", body.len())
        .body(body::full(body))
        .unwrap()
}
