//! The reverse proxy: every request is for the model server of the configuration.

use sidecod_sidecar::listen::{self, Service};

use crate::intercept;
use crate::reload::Current;

/// What answers the requests of a connection.
#[must_use]
pub fn service(current: Current) -> impl Service {
    listen::service(move |request| {
        let app = current.get();
        let destination = app.reverse.clone();
        intercept::answer(app, destination, request)
    })
}
