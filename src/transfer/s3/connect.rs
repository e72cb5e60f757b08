//! From the `cloud.*` settings to a client of the SDK.
//!
//! Credentials come from the file that the configuration names and from nowhere else, or, when it names none, from the chain that every
//! AWS tool uses. Region, endpoint, profile and proxy variables of that chain count too. What is set here goes for requests for
//! credentials (STS, SSO) as well, since they leave through the same proxy.

use std::path::Path;
use std::time::Duration;

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{RequestChecksumCalculation, SharedHttpClient, StalledStreamProtectionConfig};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::super::StoreSettings;
use super::super::runtime::Runtime;
use super::errors::{Place, checked_origin};
use crate::error::{Error, Kind, Result, Stage};

/// Longest wait for a connection, even where a slow answer is allowed to take longer.
const CONNECT: Duration = Duration::from_secs(10);
/// A file of certificates is a few hundred kilobytes.
const BUNDLE_BYTES: u64 = 8 << 20;

/// Makes the client, and says where it goes.
pub(super) fn connect(store: &StoreSettings, timeout: Duration) -> Result<(Client, Place)> {
    if store.bucket.is_empty() {
        return Err(Error::new(Kind::ConfigInvalidValue, "provider s3 needs cloud.bucket"));
    }
    let endpoint = store.endpoint.as_deref().map(|url| checked_origin("cloud.endpoint", url)).transpose()?;
    let proxy = store.proxy.as_deref().map(|url| proxy_place(url).ok_or_else(invalid_proxy)).transpose()?;
    if let Some(file) = &store.credentials_path {
        // The SDK would take an unreadable file for an empty one.
        std::fs::File::open(file).map_err(|_| Error::new(Kind::CredentialsMissing, "cloud.credentials_path cannot be read"))?;
    }
    let http = http_client(store)?;
    let sdk = load(store, http, timeout)?;
    let Some(region) = sdk.region() else {
        return Err(Error::new(Kind::ConfigInvalidValue, "cloud.region is not set, and neither is AWS_REGION or the profile's region"));
    };
    // AWS_ENDPOINT_URL and the profile may name one too.
    let endpoint = match (endpoint, sdk.endpoint_url()) {
        (None, Some(url)) => Some(checked_origin("AWS_ENDPOINT_URL", url)?),
        (endpoint, _) => endpoint,
    };
    let place = Place {
        origin: endpoint.clone().unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com:443")),
        proxy: proxy.or_else(|| proxy_of_environment(endpoint.as_deref().is_none_or(|url| url.starts_with("https")))),
        has_credentials_file: store.credentials_path.is_some(),
    };
    let config = aws_sdk_s3::config::Builder::from(&sdk)
        // Buckets as host names need DNS names that only Amazon has.
        .force_path_style(endpoint.is_some())
        // The signature covers the SHA-256 of every body; servers other than Amazon's often refuse the extra checksum headers.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .build();
    Ok((Client::from_conf(config), place))
}

fn load(store: &StoreSettings, http: SharedHttpClient, timeout: Duration) -> Result<SdkConfig> {
    let timeouts = TimeoutConfig::builder().connect_timeout(timeout.min(CONNECT)).build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http.clone())
        .timeout_config(timeouts)
        // One attempt: the client's own patience counts, for all stores alike.
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(url) = &store.endpoint {
        loader = loader.endpoint_url(url);
    }
    if let Some(file) = &store.credentials_path {
        // Only the named file: credentials left in the environment would be used in its place and nobody would notice.
        let files = EnvConfigFiles::builder().with_file(EnvConfigFileKind::Credentials, file).build();
        let provider = ProviderConfig::default().with_http_client(http);
        let provider = ProfileFileCredentialsProvider::builder().configure(&provider).profile_files(files.clone()).build();
        loader = loader.profile_files(files).credentials_provider(provider);
    }
    let (region, has_endpoint) = (store.region.clone(), store.endpoint.is_some());
    Runtime::shared()?.run(&|| false, async move {
        if let Some(region) = region {
            loader = loader.region(Region::new(region));
        } else if has_endpoint {
            // Other servers mostly ignore the region; asking the instance metadata for it would cost seconds outside Amazon.
            let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new());
            loader = loader.region(chain.or_else(ProfileFileRegionProvider::new()).or_else(Region::from_static("us-east-1")));
        }
        Ok(loader.load().await)
    })
}

/// The connector: rustls with AWS-LC, the system's authorities and those of the bundle, the proxy.
fn http_client(store: &StoreSettings) -> Result<SharedHttpClient> {
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
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder().proxy_config(proxy.clone());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(tls.clone()).build()
    }))
}

/// A PEM file in which every certificate is one: the SDK panics on less.
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

/// `host:port` of a proxy URL, without user and password.
fn proxy_place(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Place::origin_of(&format!("{scheme}://{host}"))?.split_once("://").map(|(_, host)| host.to_owned())
}

fn invalid_proxy() -> Error {
    Error::new(Kind::ConfigInvalidValue, "cloud.proxy must be http(s)://[user:password@]host[:port]")
}

/// The proxy that the connector takes from the environment, for messages.
fn proxy_of_environment(is_tls: bool) -> Option<String> {
    let names: &[&str] = if is_tls { &["HTTPS_PROXY", "https_proxy"] } else { &["HTTP_PROXY", "http_proxy"] };
    names.iter().chain(&["ALL_PROXY", "all_proxy"]).find_map(|name| std::env::var(name).ok().and_then(|url| proxy_place(&url)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_named_without_its_password() {
        assert_eq!(proxy_place("http://user:word@proxy.example.org:3128/").as_deref(), Some("proxy.example.org:3128"));
        assert_eq!(proxy_place("http://proxy.example.org").as_deref(), Some("proxy.example.org:80"));
        assert_eq!(proxy_place("proxy.example.org:3128"), None);
    }

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
