//! Sources of an object store's credentials.
//!
//! This file owns the last source, the metadata address of a cloud's machines, which answers only on those and is slow to
//! fail elsewhere, and the error if there are no credentials. It must not know what the credentials are used for.

use std::{env, error::Error, fmt, path::Path, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use object_store::{BackoffConfig, CredentialProvider, RetryConfig};
use tokio::time::timeout;

/// Longest time for the metadata address to give credentials. On a machine that has some it takes milliseconds.
const METADATA_TIME: Duration = Duration::from_secs(5);

/// Differences between the clouds.
pub(super) struct Cloud {
    /// Prefix of its environment variables.
    pub(super) environment: &'static str,
    /// Options that set credentials, point to them, or make them unnecessary.
    pub(super) sources: &'static [&'static str],
    /// Options with an address, which object_store takes without a look.
    pub(super) addresses: &'static [&'static str],
    /// A file below the home folder that is also read.
    file: Option<&'static str>,
    /// Where credentials may be, for the error message.
    places: &'static str,
    /// Usual places that are not read, for the error message.
    not_read: &'static str,
}

pub(super) static AWS: Cloud = Cloud {
    environment: "AWS_",
    sources: &[
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_web_identity_token_file",
        "aws_container_credentials_relative_uri",
        "aws_container_credentials_full_uri",
        "aws_metadata_endpoint",
        "aws_skip_signature",
    ],
    addresses: &["aws_endpoint"],
    file: None,
    places: "aws_access_key_id and aws_secret_access_key in its `options`, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the \
             environment, or what points to a web identity or a container's role",
    not_read: "; profiles (AWS_PROFILE) and ~/.aws are not read",
};

pub(super) static GOOGLE: Cloud = Cloud {
    environment: "GOOGLE_",
    sources: &[
        "google_service_account",
        "google_service_account_key",
        "google_application_credentials",
        "google_skip_signature",
    ],
    addresses: &[],
    file: Some(".config/gcloud/application_default_credentials.json"),
    places: "google_service_account in its `options`, or GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS in the \
             environment",
    not_read: "",
};

pub(super) static AZURE: Cloud = Cloud {
    environment: "AZURE_",
    sources: &[
        "azure_storage_account_key",
        "azure_storage_client_secret",
        "azure_storage_sas_key",
        "azure_storage_token",
        "azure_storage_use_emulator",
        "azure_federated_token_file",
        "azure_fabric_session_token",
        "azure_msi_endpoint",
        "azure_use_azure_cli",
        "azure_credential_type",
        "azure_skip_signature",
    ],
    addresses: &[],
    file: None,
    places: "azure_storage_account_key or azure_storage_sas_key in its `options`, or AZURE_STORAGE_ACCOUNT_KEY, \
             AZURE_STORAGE_SAS_KEY or AZURE_CLIENT_SECRET in the environment",
    not_read: "; the login of `az` is read only with the option `use_azure_cli`",
};

impl Cloud {
    /// The environment variables that configure the cloud's stores, as names of options and their values.
    pub(super) fn variables(&self) -> impl Iterator<Item = (String, String)> {
        let texts =
            env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        texts
            .filter(|(name, _)| name.starts_with(self.environment))
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
    }

    /// Whether no option or file gives credentials, so that only the machine can. `value` returns an option's value.
    pub(super) fn has_no_source(&self, value: impl Fn(&str) -> Option<String>) -> bool {
        let is_set = |option: &&str| value(option).is_some_and(|value| !value.is_empty() && value != "false");
        let home = env::var_os("HOME");
        let has_file = self.file.zip(home).is_some_and(|(file, home)| Path::new(&home).join(file).exists());
        !self.sources.iter().any(is_set) && !has_file
    }
}

/// Retries of the metadata address, within [`METADATA_TIME`].
pub(super) fn metadata_retry() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 1, retry_timeout: METADATA_TIME }
}

/// Neither the configuration nor the machine has credentials.
#[derive(Debug, thiserror::Error)]
#[error("no credentials: set {places}; this machine's metadata address gave none either ({cause}){not_read}")]
pub(super) struct NoCredentials {
    places: &'static str,
    cause: String,
    not_read: &'static str,
}

/// Credentials from the machine's metadata address, in bounded time.
pub(super) struct OfMachine<C> {
    machine: Arc<dyn CredentialProvider<Credential = C>>,
    cloud: &'static Cloud,
}

impl<C> OfMachine<C> {
    pub(super) fn new(machine: Arc<dyn CredentialProvider<Credential = C>>, cloud: &'static Cloud) -> Self {
        OfMachine { machine, cloud }
    }
}

impl<C> fmt::Debug for OfMachine<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfMachine").finish_non_exhaustive()
    }
}

impl<C: Send + Sync + 'static> CredentialProvider for OfMachine<C> {
    type Credential = C;

    fn get_credential<'provider, 'future>(&'provider self) -> BoxFuture<'future, object_store::Result<Arc<C>>>
    where
        'provider: 'future,
        Self: 'future,
    {
        Box::pin(async {
            let cause = match timeout(METADATA_TIME, self.machine.get_credential()).await {
                Ok(Ok(credential)) => return Ok(credential),
                Ok(Err(error)) => innermost(&error).to_string(),
                Err(_) => format!("no answer within {METADATA_TIME:?}"),
            };
            let Cloud { places, not_read, .. } = *self.cloud;
            let source = NoCredentials { places, cause, not_read }.into();
            Err(object_store::Error::Unauthenticated { path: String::new(), source })
        })
    }
}

fn innermost<'e>(error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
}
