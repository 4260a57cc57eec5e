//! The reverse proxy: every request is for the model server of the configuration.
//!
//! An app may speak HTTP/2 without being asked to, as gRPC does: its first bytes say so.

use bytes::BytesMut;
use sidecod_sidecar::listen::{self, Place, Service};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Ingress;
use super::detect::{Protocol, detect};
use crate::intercept;
use crate::reload::Current;

/// Serves a connection to its end.
pub async fn serve(ingress: Ingress, mut stream: TcpStream, place: Place) {
    let mut first = BytesMut::new();
    let limit = ingress.http.header_timeout();
    let mut shutdown = ingress.shutdown.clone();
    let protocol = tokio::select! {
        biased;
        detected = timeout(limit, detect(&mut stream, &mut first)) => match detected {
            Ok(Ok(protocol)) => protocol,
            Ok(Err(_)) | Err(_) => return,
        },
        // Nothing has been asked yet that could be answered.
        () = shutdown.wait() => return,
    };
    // What is neither is refused as the HTTP/1 that it was to be.
    let protocol = match protocol {
        Protocol::Http2 => Protocol::Http2,
        Protocol::Http1 | Protocol::Other => Protocol::Http1,
    };
    let service = service(ingress.current.clone());
    ingress
        .http(protocol, first.freeze(), stream, service, place)
        .await;
}

/// What answers the requests of a connection.
fn service(current: Current) -> impl Service {
    listen::service(move |request| {
        let app = current.get();
        let destination = app.reverse.clone();
        intercept::answer(app, destination, request)
    })
}
