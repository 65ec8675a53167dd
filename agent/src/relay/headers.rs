//! Heads of requests and answers: what is refused, what ends at the relay, what it adds.

use std::net::IpAddr;

use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use hyper::http::uri::{PathAndQuery, Uri};
use hyper::{Method, Version};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Headers between two neighbours only, beside those that `Connection` names.
static HOP_BY_HOP: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Why a request is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadRequest {
    /// `CONNECT`.
    Method,
    /// No host, more than one, or one that is not text.
    Host,
    /// A transfer coding other than `chunked`, or a length beside it.
    Framing,
}

impl BadRequest {
    /// What the client is told.
    pub fn message(self) -> &'static str {
        match self {
            Self::Method => "CONNECT is not supported",
            Self::Host => "the request needs exactly one Host header",
            Self::Framing => "the length of the request's body is ambiguous",
        }
    }
}

/// Checks what hyper leaves to its users.
pub(super) fn check(method: &Method, version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), BadRequest> {
    if method == Method::CONNECT {
        return Err(BadRequest::Method);
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(BadRequest::Framing);
    }
    let hosts = headers.get_all(HOST).iter().count();
    let missing = hosts == 0 && version == Version::HTTP_11 && uri.authority().is_none();
    if hosts > 1 || missing {
        return Err(BadRequest::Host);
    }
    Ok(())
}

/// The protocol a client asks to change to; never `h2c`, which would carry requests past the relay.
pub(super) fn wanted_upgrade(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    if version != Version::HTTP_11 || !names(headers).any(|name| name.eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let mut wanted = headers.get_all(UPGRADE).iter();
    let protocol = wanted.next()?;
    let h2c = protocol.as_bytes().to_ascii_lowercase().windows(3).any(|part| part == b"h2c");
    (wanted.next().is_none() && !h2c).then(|| protocol.clone())
}

/// The tokens of all `Connection` headers.
fn names(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Whether [`strip`] has to look closer.
fn for_neighbour(name: &HeaderName) -> bool {
    *name == TE || HOP_BY_HOP.contains(name)
}

/// Removes what is meant for the neighbour only.
pub(super) fn strip(headers: &mut HeaderMap) {
    // One look at what is there costs less than seven for what is not.
    if !headers.keys().any(for_neighbour) {
        return;
    }
    let named: Vec<HeaderName> = names(headers)
        .filter_map(|name| HeaderName::try_from(name).ok())
        // These carry meaning end to end whatever a client says about them.
        .filter(|name| !matches!(name.as_str(), "host" | "content-length" | "authorization" | "cookie"))
        .collect();
    let trailers = headers.get_all(TE).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Asks for, or grants, a change of protocol.
pub(super) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// A client's address as [`add_client`] takes it.
pub(super) fn address(client: IpAddr) -> HeaderValue {
    HeaderValue::from_str(&client.to_canonical().to_string()).unwrap_or(HeaderValue::from_static("unknown"))
}

/// Adds the client's address behind those that proxies before us saw.
pub(super) fn add_client(headers: &mut HeaderMap, client: &HeaderValue) {
    if !headers.contains_key(&FORWARDED_FOR) {
        headers.insert(FORWARDED_FOR, client.clone());
        return;
    }
    let mut seen = Vec::new();
    for value in headers.get_all(&FORWARDED_FOR) {
        seen.extend_from_slice(value.as_bytes());
        seen.extend_from_slice(b", ");
    }
    seen.extend_from_slice(client.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&seen) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// Path and query as the endpoint expects them; an absolute address loses its host to the `Host` header.
pub(super) fn to_origin(uri: &mut Uri, headers: &mut HeaderMap) {
    if let Some(authority) = uri.authority() {
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        if let Ok(host) = HeaderValue::from_str(host) {
            headers.insert(HOST, host);
        }
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *uri = Uri::from(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn checked(method: &Method, pairs: &[(&'static str, &'static str)]) -> Result<(), BadRequest> {
        check(method, Version::HTTP_11, &Uri::from_static("/"), &map(pairs))
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        assert_eq!(checked(&Method::GET, &[("host", "a")]), Ok(()));
        assert_eq!(checked(&Method::GET, &[]), Err(BadRequest::Host));
        assert_eq!(checked(&Method::GET, &[("host", "a"), ("host", "b")]), Err(BadRequest::Host));
        assert_eq!(checked(&Method::CONNECT, &[("host", "a")]), Err(BadRequest::Method));
        for coding in ["gzip, chunked", "identity", "chunked, chunked", "xchunked"] {
            let pairs = [("host", "a"), ("transfer-encoding", coding)];
            assert_eq!(checked(&Method::POST, &pairs), Err(BadRequest::Framing), "{coding}");
        }
        let twice = [("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(checked(&Method::POST, &twice), Err(BadRequest::Framing));
    }

    #[test]
    fn what_is_meant_for_the_neighbour_is_removed() {
        let mut headers = map(&[
            ("connection", "keep-alive, x-secret, Host"),
            ("keep-alive", "timeout=5"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("host", "a"),
            ("x-kept", "2"),
        ]);
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "te", "x-kept"]);
    }

    #[test]
    fn an_upgrade_needs_both_headers_and_is_never_h2c() {
        let asked = |pairs| wanted_upgrade(Version::HTTP_11, &map(pairs));
        assert!(asked(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]).is_some());
        assert!(asked(&[("upgrade", "websocket")]).is_none());
        assert!(asked(&[("connection", "upgrade")]).is_none());
        assert!(asked(&[("connection", "upgrade"), ("upgrade", "websocket, H2C")]).is_none());
        let old = map(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        assert!(wanted_upgrade(Version::HTTP_10, &old).is_none());
    }

    #[test]
    fn the_client_is_added_behind_earlier_proxies() {
        let mut headers = map(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")]);
        let client = address(IpAddr::from([127, 0, 0, 1]));
        add_client(&mut headers, &client);
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 2.2.2.2, 127.0.0.1");
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
        let mut headers = map(&[]);
        add_client(&mut headers, &client);
        assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    }

    #[test]
    fn an_absolute_address_becomes_path_and_host() {
        let mut headers = map(&[("host", "other")]);
        let mut uri = Uri::from_static("http://user@app.test:81/a?b=1");
        to_origin(&mut uri, &mut headers);
        assert_eq!(uri, Uri::from_static("/a?b=1"));
        assert_eq!(headers["host"], "app.test:81");
    }
}
