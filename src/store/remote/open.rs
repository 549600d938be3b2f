//! Opening a bucket: name, options, environment, certificates, retries.
//!
//! This file owns which setting applies. It must not know what is then done with the bucket.

use std::{fs, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    multipart::MultipartStore,
    path::Path as Key,
};
use reqwest::Certificate;
use secrecy::ExposeSecret;
use url::Url;

use super::{bucket::Bucket, client::Connector};
use crate::{
    config::{self, BucketLocation, Provider},
    store::{
        StoreError,
        budget::Share,
        credentials::{AWS, AZURE, Cloud, GOOGLE, OfMachine, metadata_retry},
        error::Reporter,
    },
};

/// Client settings unless the environment or the destination's options set them. object_store's own limit of 30 s for a
/// whole request is too short for a part over a slow line; the read timeout notices a stalled connection.
const CLIENT_DEFAULTS: [(&str, &str); 3] =
    [("timeout", "15 minutes"), ("connect_timeout", "10 seconds"), ("read_timeout", "2 minutes")];

macro_rules! open {
    ($builder:ty, $named:ident, $option:ty, $cloud:expr, $destination:expr, $bucket:expr, $client:expr, $fail:expr, $refuse:expr) => {{
        let cloud: &'static Cloud = $cloud;
        let mut builder = <$builder>::from_env()
            .with_client_options(ClientOptions::default())
            .with_http_connector($client)
            .with_retry(retry());
        // A second time, because these client options have replaced those of the environment.
        for (name, value) in cloud.variables() {
            if let Ok(option) = name.parse::<$option>() {
                builder = builder.with_config(option, value);
            }
        }
        for (name, value) in CLIENT_DEFAULTS {
            if std::env::var_os(format!("{}{}", cloud.environment, name.to_ascii_uppercase())).is_none() {
                builder = builder.with_config(name.parse::<$option>().map_err(|error| $fail(&error))?, value);
            }
        }
        for (name, value) in &$destination.options {
            let option = name.to_ascii_lowercase().parse::<$option>().map_err(|error| $fail(&error))?;
            builder = builder.with_config(option, value.expose_secret());
        }
        builder = builder.$named($bucket);
        let value = |name: &str| builder.get_config_value(&name.parse::<$option>().ok()?);
        if let Some(problem) = cloud.addresses.iter().find_map(|name| mistaken_address(name, &value(name)?)) {
            return Err($refuse(&problem));
        }
        if cloud.has_no_source(value) {
            tracing::info!(
                destination = $destination.name,
                "no credentials in its options or the environment; asking this machine's metadata address"
            );
            let machine = builder.clone().with_retry(metadata_retry()).build().map_err(|error| $fail(&error))?;
            builder = builder.with_credentials(Arc::new(OfMachine::new(Arc::clone(machine.credentials()), cloud)));
        }
        Arc::new(builder.build().map_err(|error| $fail(&error))?)
    }};
}

/// What is wrong with an option that should be an address. object_store panics at its first request to one that is not.
fn mistaken_address(name: &str, text: &str) -> Option<String> {
    let is_address = |url: Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    let is_good = Url::parse(text).is_ok_and(is_address);
    (!is_good).then(|| {
        format!("{name} is not an address: expected one such as \"https://s3.example.com\", found {text:?}; it comes from the \
                 destination's options or the environment")
    })
}

fn retry() -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(10), base: 3.0 };
    RetryConfig { backoff, max_retries: 5, retry_timeout: Duration::from_secs(2 * 60) }
}

impl Bucket {
    pub(in crate::store) fn open(
        destination: &config::DestinationSettings,
        location: &BucketLocation,
        reporter: Arc<Reporter>,
        holder: &str,
        memory: Share,
    ) -> Result<Self, StoreError> {
        let fail = |error: &Error| reporter.remote("open", "", error);
        let refuse = |cause: &str| reporter.text("open", "", cause.to_owned());
        let mut client = Connector::default();
        if let Some(file) = &destination.ca_file {
            let authorities = fs::read(&file.path)
                .map_err(|error| error.to_string())
                .and_then(|pem| Certificate::from_pem_bundle(&pem).map_err(|error| error.to_string()));
            client.authorities = authorities.map_err(|error| {
                refuse(&file.problem(format_args!("{} cannot be used: {error}", file.path.display())).to_string())
            })?;
        }
        let folder = Key::parse(&location.prefix).map_err(|error| refuse(&error.to_string()))?;
        let (objects, multiparts): (Arc<dyn ObjectStore>, Arc<dyn MultipartStore>) = match location.provider {
            Provider::S3 => {
                let store = open!(
                    AmazonS3Builder,
                    with_bucket_name,
                    AmazonS3ConfigKey,
                    &AWS,
                    destination,
                    &location.bucket,
                    client,
                    fail,
                    refuse
                );
                (Arc::clone(&store) as _, store)
            }
            Provider::GoogleCloud => {
                let store = open!(
                    GoogleCloudStorageBuilder,
                    with_bucket_name,
                    GoogleConfigKey,
                    &GOOGLE,
                    destination,
                    &location.bucket,
                    client,
                    fail,
                    refuse
                );
                (Arc::clone(&store) as _, store)
            }
            Provider::Azure => {
                let store = open!(
                    MicrosoftAzureBuilder,
                    with_container_name,
                    AzureConfigKey,
                    &AZURE,
                    destination,
                    &location.bucket,
                    client,
                    fail,
                    refuse
                );
                (Arc::clone(&store) as _, store)
            }
        };
        Ok(Self::new(objects, multiparts, folder, reporter, holder, memory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_of_credentials_is_an_option_of_its_cloud() {
        assert!(AWS.sources.iter().all(|name| name.parse::<AmazonS3ConfigKey>().is_ok()));
        assert!(GOOGLE.sources.iter().all(|name| name.parse::<GoogleConfigKey>().is_ok()));
        assert!(AZURE.sources.iter().all(|name| name.parse::<AzureConfigKey>().is_ok()));
    }
}
