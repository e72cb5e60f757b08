//! Where requests go, for messages: never more of a URL than scheme, host and port, since paths name objects and queries hold signatures.

use url::{Host, Url};

use super::super::Address;
use crate::error::{Error, Kind, Result};

/// Where requests go.
#[derive(Clone)]
pub(in crate::transfer) struct Place {
    /// `https://host:port`, nothing else of the endpoint.
    pub origin: String,
    /// `host:port` of the proxy, without its password.
    pub proxy: Option<String>,
    /// Whether the credentials come from the file in `cloud.credentials_path` alone.
    pub has_credentials_file: bool,
}

impl Place {
    /// Splits a URL; `None` unless it is `http(s)://host[:port]` with at most a path, and no user.
    pub fn origin_of(url: &str) -> Option<String> {
        let (scheme, rest) = url.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let default_port = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let host = rest.split('/').next().filter(|host| !host.is_empty() && !host.contains(['@', '?', '#', ' ']))?;
        // An IPv6 address has colons of its own, in brackets.
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
        Some(if has_port { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{default_port}") })
    }

    /// Where a request goes: elsewhere, if it is one for a token, in an upload session or after a redirect.
    pub fn at(&self, url: &str) -> Place {
        Place { origin: Place::origin_of(url).unwrap_or_else(|| self.origin.clone()), ..self.clone() }
    }

    /// Whether requests are encrypted on the way.
    pub fn is_tls(&self) -> bool {
        self.origin.starts_with("https://")
    }

    /// For whoever examines the way there.
    pub fn address(&self) -> Address {
        Address { origin: self.origin.clone(), proxy: self.proxy.clone() }
    }

    /// Host, port and proxy in words.
    pub fn describe(&self) -> String {
        let host = self.origin.split_once("://").map_or(self.origin.as_str(), |(_, host)| host);
        match &self.proxy {
            Some(proxy) => format!("{host} by way of proxy {proxy}"),
            None => host.to_owned(),
        }
    }
}

/// Checks an endpoint or proxy URL; `key` names the configuration key, never the value, which may hold a password.
pub(in crate::transfer) fn checked_origin(key: &str, url: &str) -> Result<String> {
    Place::origin_of(url).ok_or_else(|| Error::new(Kind::ConfigInvalidValue, format!("{key} must be http(s)://host[:port]")))
}

/// Whether a URL is one that tokens and keys may be sent to: encrypted on the way, or not leaving this machine.
pub(in crate::transfer) fn keeps_credentials(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let is_loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback)
}

/// Checks the URL of a server that is sent credentials; answers its origin.
pub(in crate::transfer) fn private_origin(key: &str, url: &str) -> Result<String> {
    let origin = checked_origin(key, url)?;
    if keeps_credentials(url) {
        return Ok(origin);
    }
    Err(Error::new(Kind::ConfigInvalidValue, format!("{key} must be https, because credentials travel there")))
}

/// `host:port` of a proxy URL, without user and password.
pub(super) fn proxy_place(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Place::origin_of(&format!("{scheme}://{host}"))?.split_once("://").map(|(_, host)| host.to_owned())
}

/// The proxy that the connector takes from the environment, for messages.
pub(super) fn proxy_of_environment(is_tls: bool) -> Option<String> {
    let names: &[&str] = if is_tls { &["HTTPS_PROXY", "https_proxy"] } else { &["HTTP_PROXY", "http_proxy"] };
    names.iter().chain(&["ALL_PROXY", "all_proxy"]).find_map(|name| std::env::var(name).ok().and_then(|url| proxy_place(&url)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_no_path_and_always_a_port() {
        for (url, expected) in [
            ("https://s3.example.org", Some("https://s3.example.org:443")),
            ("http://127.0.0.1:9000/", Some("http://127.0.0.1:9000")),
            ("HTTPS://[::1]:9000/x/y", Some("https://[::1]:9000")),
            ("https://[2001:db8::1]", Some("https://[2001:db8::1]:443")),
            ("https://user:word@host", None),
            ("ftp://host", None),
            ("host:9000", None),
            ("https://", None),
            ("https://host?x", None),
        ] {
            assert_eq!(Place::origin_of(url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn credentials_travel_encrypted_or_not_at_all() {
        for url in
            ["https://graph.example.org/v1.0", "http://127.0.0.1:9000", "http://127.8.9.1", "http://[::1]:9000/x", "http://localhost:1"]
        {
            assert!(keeps_credentials(url) && private_origin("cloud.endpoint", url).is_ok(), "{url}");
        }
        for url in [
            "http://graph.example.org",
            "http://localhost.example.org",
            "http://10.0.0.1:80",
            "http://127.0.0.1.example.org",
            "ftp://127.0.0.1",
            "x",
        ] {
            assert!(!keeps_credentials(url) && private_origin("cloud.endpoint", url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_proxy_is_named_without_its_password() {
        assert_eq!(proxy_place("http://user:word@proxy.example.org:3128/").as_deref(), Some("proxy.example.org:3128"));
        assert_eq!(proxy_place("http://proxy.example.org").as_deref(), Some("proxy.example.org:80"));
        assert_eq!(proxy_place("proxy.example.org:3128"), None);
    }
}
