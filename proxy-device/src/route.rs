//! Routes: which requests have inputs to code.

use http::{HeaderMap, Method, Request, header};

use crate::config::Route;

/// The first route that takes a request by its method, path and content-type.
#[must_use]
pub fn find<'r, B>(routes: &'r [Route], request: &Request<B>) -> Option<&'r Route> {
    routes.iter().find(|route| {
        method_matches(&route.method, request.method())
            && path_matches(&route.path, request.uri().path())
            && type_matches(&route.content_type, content_type(request.headers()))
    })
}

/// The content-type of a request, if it is text.
#[must_use]
pub fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()
}

fn method_matches(pattern: &str, method: &Method) -> bool {
    pattern == method.as_str()
}

fn path_matches(pattern: &str, path: &str) -> bool {
    let mut path = path.split('/');
    for part in pattern.split('/') {
        match (part, path.next()) {
            ("**", Some(_)) => return true,
            ("*", Some(segment)) if !segment.is_empty() => {}
            (part, Some(segment)) if part == segment => {}
            _ => return false,
        }
    }
    path.next().is_none()
}

fn type_matches(patterns: &[String], content_type: Option<&str>) -> bool {
    if patterns.is_empty() {
        return true;
    }
    let essence = content_type
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim();
    let essence = essence.to_ascii_lowercase();
    patterns
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => essence.starts_with(&start.to_ascii_lowercase()),
            None => pattern.eq_ignore_ascii_case(&essence),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (pattern, path, matches) in [
            ("/predictions/*", "/predictions/resnet", true),
            ("/predictions/*", "/predictions/", false),
            ("/predictions/*", "/predictions/a/b", false),
            ("/predictions/*", "/predictions", false),
            ("/v1/models/*/infer", "/v1/models/m/infer", true),
            ("/v1/models/*/infer", "/v1/models/m/inferno", false),
            ("/v1/**", "/v1/a/b", true),
            ("/v1/**", "/v1/", true),
            ("/v1/**", "/v1", false),
            ("/v1/**", "/v10/a", false),
            ("/", "/", true),
        ] {
            assert_eq!(path_matches(pattern, path), matches, "{pattern} {path}");
        }
    }

    #[test]
    fn types() {
        let some = ["image/*".to_owned(), "multipart/form-data".to_owned()];
        for (content_type, matches) in [
            (Some("image/jpeg"), true),
            (Some("IMAGE/PNG; x=y"), true),
            (Some("multipart/form-data; boundary=b"), true),
            (Some("multipart/mixed; boundary=b"), false),
            (Some("application/json"), false),
            (None, false),
        ] {
            assert_eq!(
                type_matches(&some, content_type),
                matches,
                "{content_type:?}"
            );
        }
        assert!(type_matches(&[], None));
    }

    #[test]
    fn the_first_route_counts() {
        let route = |name: &str, path: &str| -> Route {
            serde::Deserialize::deserialize(toml_table(name, path)).unwrap()
        };
        let routes = [route("one", "/a/*"), route("two", "/a/**")];
        let request = |method: &str, path: &str| {
            Request::builder()
                .method(method)
                .uri(path)
                .body(())
                .unwrap()
        };
        assert_eq!(
            find(&routes, &request("POST", "/a/b")).map(|r| &r.name[..]),
            Some("one")
        );
        assert_eq!(
            find(&routes, &request("POST", "/a/b/c?d=e")).map(|r| &r.name[..]),
            Some("two")
        );
        assert!(find(&routes, &request("GET", "/a/b")).is_none());
    }

    fn toml_table(
        name: &str,
        path: &str,
    ) -> impl serde::Deserializer<'static, Error = serde::de::value::Error> {
        let pairs = [("name", name.to_owned()), ("path", path.to_owned())];
        serde::de::value::MapDeserializer::new(pairs.into_iter())
    }
}
