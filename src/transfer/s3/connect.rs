//! From the `cloud.*` settings to a client of the SDK.
//!
//! Credentials come from the file that the configuration names and from nowhere else, or, when it names none, from the chain that every
//! AWS tool uses. Region, endpoint, profile and proxy variables of that chain count too. What is set here goes for requests for
//! credentials (STS, SSO) as well, since they leave through the same proxy.

use std::time::Duration;

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{RequestChecksumCalculation, SharedHttpClient, StalledStreamProtectionConfig};

use super::super::http::{CONNECT, Place, checked_origin, proxy_of, sdk_client};
use super::super::runtime::Runtime;
use super::super::{StoreSettings, secret_file};

use crate::error::{Error, Kind, Result};

/// Makes the client, and says where it goes.
pub(super) fn connect(store: &StoreSettings, timeout: Duration) -> Result<(Client, Place, Option<SharedCredentialsProvider>)> {
    if store.bucket.is_empty() {
        return Err(Error::new(Kind::ConfigInvalidValue, "provider s3 needs cloud.bucket"));
    }
    let endpoint = store.endpoint.as_deref().map(|url| checked_origin("cloud.endpoint", url)).transpose()?;
    if let Some(file) = &store.credentials_path {
        // The SDK would take an unreadable file for an empty one.
        secret_file::check(file)?;
    }
    let http = sdk_client(store)?;
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
        proxy: proxy_of(store, endpoint.as_deref().is_none_or(|url| url.starts_with("https")))?,
        has_credentials_file: store.credentials_path.is_some(),
    };
    let config = aws_sdk_s3::config::Builder::from(&sdk)
        // Buckets as host names need DNS names that only Amazon has.
        .force_path_style(endpoint.is_some())
        // The signature covers the SHA-256 of every body; servers other than Amazon's often refuse the extra checksum headers.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .build();
    Ok((Client::from_conf(config), place, sdk.credentials_provider()))
}

/// Where the chain found credentials, in words.
pub(super) fn origin(credentials: &Credentials) -> &'static str {
    let features = credentials.get_property::<Vec<AwsCredentialFeature>>().map(Vec::as_slice).unwrap_or_default();
    // A role that was assumed names its source too; the last step is the one that matters.
    match features.last() {
        Some(AwsCredentialFeature::CredentialsEnvVars) => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        Some(
            AwsCredentialFeature::CredentialsEnvVarsStsWebIdToken
            | AwsCredentialFeature::CredentialsStsAssumeRoleWebId
            | AwsCredentialFeature::CredentialsProfileStsWebIdToken,
        ) => "a role by web identity",
        Some(AwsCredentialFeature::CredentialsStsAssumeRole) => "a role that was assumed",
        Some(AwsCredentialFeature::CredentialsSso | AwsCredentialFeature::CredentialsProfileSso) => "single sign-on",
        Some(AwsCredentialFeature::CredentialsProcess | AwsCredentialFeature::CredentialsProfileProcess) => {
            "the profile's credential process"
        }
        Some(AwsCredentialFeature::CredentialsHttp) => "the container's metadata",
        Some(AwsCredentialFeature::CredentialsImds) => "the instance's metadata",
        Some(AwsCredentialFeature::CredentialsProfile) => "the profile in ~/.aws",
        _ => "the chain of the AWS tools",
    }
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
