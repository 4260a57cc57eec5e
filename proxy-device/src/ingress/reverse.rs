//! The reverse proxy: every request is for the model server of the configuration.

use std::sync::Arc;

use sidecod_sidecar::listen::{self, Service};

use crate::app::App;
use crate::intercept;

/// What answers the requests of a connection.
pub fn service(app: Arc<App>) -> impl Service {
    listen::service(move |request| intercept::answer(app.clone(), app.reverse.clone(), request))
}
