//! A request to change the protocol: once the model server agrees, its bytes are passed on as they
//! come, inside the HTTP/2 stream of the request.

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use http_body_util::channel::Channel;
use hyper_util::rt::TokioIo;
use sidecod_sidecar::metrics::Gauged;
use sidecod_sidecar::upgrade::{DONE, IDLE};
use sidecod_sidecar::{Body, body, hop, tunnel};
use sidecod_wire::header::PREFIX;

use crate::fail::Fail;
use crate::relay::{self, Steps};
use crate::serve::DeviceBody;
use crate::upstream::Upstream;

/// Asks the model server. An answer other than 101 is relayed like any.
pub(crate) async fn answer(
    upstream: &Upstream,
    request: Request<DeviceBody>,
    protocol: HeaderValue,
    in_flight: Gauged,
) -> Result<Response<Body>, Fail> {
    let (mut parts, from_device) = request.into_parts();
    relay::to_upstream(&mut parts);
    // The only version that has upgrades.
    parts.version = Version::HTTP_11;
    parts
        .headers
        .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(UPGRADE, protocol);
    let mut answer = upstream
        .call(Request::from_parts(parts, body::empty()), None)
        .await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(relay::to_device(answer, &Steps::default(), in_flight));
    }
    let upgraded = hyper::upgrade::on(&mut answer);
    let mut headers = std::mem::take(answer.headers_mut());
    let protocol = headers.get(UPGRADE).cloned();
    hop::remove_hop_by_hop(&mut headers);
    hop::remove_prefixed(&mut headers, PREFIX);
    headers.insert(DONE, protocol.unwrap_or(HeaderValue::from_static("")));
    let (to_device, channel) = Channel::new(1);
    tokio::spawn(async move {
        let _in_flight = in_flight;
        match upgraded.await {
            Ok(upgraded) => {
                let server = TokioIo::new(upgraded);
                if let Err(error) = tunnel::join(server, to_device, from_device, IDLE).await {
                    tracing::debug!(%error, "an upgraded connection");
                }
            }
            Err(error) => to_device.abort(error.into()),
        }
    });
    let mut answer = Response::new(body::streamed(channel));
    *answer.headers_mut() = headers;
    *answer.version_mut() = Version::HTTP_2;
    Ok(answer)
}
