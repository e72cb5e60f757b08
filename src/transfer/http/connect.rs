//! The connector that all stores share: rustls with AWS-LC, the system's authorities and those of the bundle, the proxy.
//!
//! TLS is always checked; there is no setting that turns it off. The connector follows no redirect and keeps no cookie.

use std::path::Path;
use std::time::Duration;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{HttpConnectorSettings, SharedHttpClient, SharedHttpConnector};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::super::StoreSettings;
use super::place::{Place, proxy_of_environment, proxy_place};
use crate::error::{Error, Kind, Result, Stage};

/// Longest wait for a connection, even where a slow answer is allowed to take longer.
pub(in crate::transfer) const CONNECT: Duration = Duration::from_secs(10);
/// A file of certificates is a few hundred kilobytes.
const BUNDLE_BYTES: u64 = 8 << 20;

/// For the SDK, which sets its own time limits.
pub(in crate::transfer) fn sdk_client(store: &StoreSettings) -> Result<SharedHttpClient> {
    let (tls, proxy) = parts(store)?;
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder().proxy_config(proxy.clone());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(tls.clone()).build()
    }))
}

/// For everybody else.
pub(super) fn connector(store: &StoreSettings, timeout: Duration) -> Result<SharedHttpConnector> {
    let (tls, proxy) = parts(store)?;
    let settings = HttpConnectorSettings::builder().connect_timeout(timeout.min(CONNECT)).build();
    let connector = Connector::builder().proxy_config(proxy).connector_settings(settings);
    let connector = connector.sleep_impl(aws_smithy_async::rt::sleep::TokioSleep::new());
    Ok(SharedHttpConnector::new(connector.tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(tls).build()))
}

/// `host:port` of the proxy in use, for messages.
pub(in crate::transfer) fn proxy_of(store: &StoreSettings, is_tls: bool) -> Result<Option<String>> {
    match &store.proxy {
        Some(url) => Ok(Some(proxy_place(url).ok_or_else(invalid_proxy)?)),
        None => Ok(proxy_of_environment(is_tls)),
    }
}

/// Where requests to an endpoint go.
pub(super) fn place(store: &StoreSettings, origin: String) -> Result<Place> {
    let proxy = proxy_of(store, origin.starts_with("https"))?;
    Ok(Place { origin, proxy, has_credentials_file: store.credentials_path.is_some() })
}

fn parts(store: &StoreSettings) -> Result<(TlsContext, ProxyConfig)> {
    let mut trust = TrustStore::default();
    match (&store.ca_bundle, std::env::var_os("AWS_CA_BUNDLE")) {
        (Some(path), _) => trust.add_pem_certificate(certificates("cloud.ca_bundle", path)?),
        (None, Some(path)) if !path.is_empty() => trust.add_pem_certificate(certificates("AWS_CA_BUNDLE", Path::new(&path))?),
        _ => &mut trust,
    };
    let tls = TlsContext::builder().with_trust_store(trust).build();
    let tls = tls.map_err(|_| Error::new(Kind::Internal, "TLS cannot be set up").at(Stage::Transfer))?;
    let proxy = match &store.proxy {
        Some(url) => {
            let proxy = ProxyConfig::all(url.as_str()).map_err(|_| invalid_proxy())?;
            match std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy")) {
                Ok(exceptions) => proxy.no_proxy(exceptions),
                Err(_) => proxy,
            }
        }
        None => ProxyConfig::from_env(),
    };
    Ok((tls, proxy))
}

/// A PEM file in which every certificate is one: the connector panics on less.
fn certificates(key: &str, path: &Path) -> Result<Vec<u8>> {
    let unreadable = |what: &str| Error::new(Kind::ConfigInvalidValue, format!("{key} {what}"));
    let size = std::fs::metadata(path).map_err(|_| unreadable("cannot be read"))?.len();
    if size > BUNDLE_BYTES {
        return Err(unreadable("is too large to be a file of certificates"));
    }
    let pem = std::fs::read(path).map_err(|_| unreadable("cannot be read"))?;
    let mut authorities = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| unreadable("is not PEM"))?;
        authorities.add(certificate).map_err(|_| unreadable("holds something that is not a certificate"))?;
    }
    if authorities.is_empty() { Err(unreadable("holds no certificate in PEM")) } else { Ok(pem) }
}

fn invalid_proxy() -> Error {
    Error::new(Kind::ConfigInvalidValue, "cloud.proxy must be http(s)://[user:password@]host[:port]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_without_certificates_is_named_by_its_key() {
        let place = tempfile::tempdir().unwrap();
        for (content, detail) in [
            ("", "cloud.ca_bundle holds no certificate in PEM"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cloud.ca_bundle holds something that is not a certificate"),
            ("-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n", "cloud.ca_bundle is not PEM"),
        ] {
            let path = place.path().join("bundle.pem");
            std::fs::write(&path, content).unwrap();
            let error = certificates("cloud.ca_bundle", &path).unwrap_err();
            assert_eq!((error.kind(), error.detail()), (Kind::ConfigInvalidValue, detail));
        }
        assert_eq!(certificates("cloud.ca_bundle", &place.path().join("none")).unwrap_err().detail(), "cloud.ca_bundle cannot be read");
    }
}
