//! The workspaces' keys.
//!
//! This file owns when a key is read: when it is first needed, and again after MoEngage has refused it, so that a key that
//! is replaced or corrected takes effect without a restart.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    config::{SourceKind, Workspace},
    lock::lock,
    outcome::{Failure, Outcome},
};

/// How long reading a key may take: longer than a command that prints it. An attempt that waits for it takes a slot of its
/// workspace.
const LONGEST_READING: Duration = Duration::from_secs(12);

/// The keys of all workspaces.
#[derive(Default)]
pub struct Secrets {
    cache: Mutex<HashMap<(String, Purpose), CachedKey>>,
}

#[derive(Default)]
struct CachedKey {
    secret: Option<SecretString>,
    /// The last other one.
    former: Option<SecretString>,
    /// Held while the key is read: a file that hangs occupies one thread, and after many refusals one attempt reads it.
    reading: Arc<tokio::sync::Mutex<()>>,
}

impl CachedKey {
    fn forget(&mut self) {
        self.former = self.secret.take().or(self.former.take());
    }

    fn replace(&mut self, secret: SecretString) {
        if self.secret.as_ref().is_some_and(|before| before.expose_secret() != secret.expose_secret()) {
            self.forget();
        }
        self.secret = Some(secret);
    }
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// It signs requests for archives.
    Archives,
    /// It is the password of the JSON APIs.
    Apis,
}

impl Purpose {
    pub(super) fn of(source: SourceKind) -> Self {
        if source.is_archive() { Purpose::Archives } else { Purpose::Apis }
    }
}

impl Secrets {
    /// The key that signs archive requests of `workspace`.
    ///
    /// # Errors
    ///
    /// What is wrong with its file or variable.
    pub async fn secret_key(&self, workspace: &Workspace) -> Result<SecretString, String> {
        self.key(workspace, Purpose::Archives).await
    }

    /// The password of `workspace` for the JSON APIs.
    ///
    /// # Errors
    ///
    /// What is wrong with its file or variable.
    pub async fn api_key(&self, workspace: &Workspace) -> Result<SecretString, String> {
        self.key(workspace, Purpose::Apis).await
    }

    pub(super) async fn key(&self, workspace: &Workspace, purpose: Purpose) -> Result<SecretString, String> {
        self.read(workspace, purpose, |_| true).await
    }

    /// The key that has replaced `refused`, which MoEngage has refused; `None` if its source still holds the same.
    ///
    /// # Errors
    ///
    /// What is wrong with its file or variable.
    pub(super) async fn renewed(
        &self,
        workspace: &Workspace,
        purpose: Purpose,
        refused: &SecretString,
    ) -> Result<Option<SecretString>, String> {
        let is_another = |secret: &SecretString| secret.expose_secret() != refused.expose_secret();
        let secret = self.read(workspace, purpose, is_another).await?;
        Ok(Some(secret).filter(is_another))
    }

    /// The cached key if it `is_good`, else the one that its source holds.
    async fn read(
        &self,
        workspace: &Workspace,
        purpose: Purpose,
        is_good: impl Fn(&SecretString) -> bool,
    ) -> Result<SecretString, String> {
        let cached = || {
            self.with_key(workspace, purpose, |key| {
                (key.secret.clone().filter(|secret| is_good(secret)), Arc::clone(&key.reading))
            })
        };
        let (secret, reading) = cached();
        if let Some(secret) = secret {
            return Ok(secret);
        }
        let (source, what) = match purpose {
            Purpose::Archives => (workspace.secret_key.clone(), "secret key"),
            Purpose::Apis => (workspace.api_key.clone(), "API key"),
        };
        let read = async {
            let reading = reading.lock_owned().await;
            // Another attempt may have read it meanwhile.
            if let (Some(secret), _) = cached() {
                return Ok(secret);
            }
            let read = tokio::task::spawn_blocking(move || {
                let read = source.resolve();
                drop(reading);
                read
            });
            let secret = match read.await {
                Ok(read) => read.map_err(|error| self.without_keys(&error.to_string()))?,
                Err(failure) => return Err(failure.to_string()),
            };
            self.with_key(workspace, purpose, |key| key.replace(secret.clone()));
            Ok(secret)
        };
        let read = tokio::time::timeout(LONGEST_READING, read).await;
        let read = read.unwrap_or_else(|_| Err(format!("it could not be read within {LONGEST_READING:?}")));
        read.map_err(|problem| format!("the {what} of workspace `{}`: {problem}", workspace.name))
    }

    /// Drops the cached keys of a workspace, so that they are read again.
    pub(super) fn forget(&self, workspace: &str) {
        let mut cache = lock(&self.cache);
        for (_, key) in cache.iter_mut().filter(|((name, _), _)| name == workspace) {
            key.forget();
        }
    }

    /// A message without any key that is in use: a command may write the one before to its standard error.
    fn without_keys(&self, message: &str) -> String {
        let cache = lock(&self.cache);
        let keys = cache.values().flat_map(|key| key.secret.iter().chain(&key.former));
        keys.fold(message.to_owned(), |message, key| message.replace(key.expose_secret(), "…"))
    }

    fn with_key<T>(&self, workspace: &Workspace, purpose: Purpose, act: impl FnOnce(&mut CachedKey) -> T) -> T {
        let mut cache = lock(&self.cache);
        act(cache.entry((workspace.name.clone(), purpose)).or_default())
    }
}

/// How an attempt fails whose key was refused and cannot be read again. Most likely the key is being replaced, so this
/// does not count as a refusal of the workspace.
pub(super) fn unreadable(refusal: Failure, problem: &str) -> Failure {
    let message = format!("{}; and the key cannot be read again at the moment: {problem}", refusal.message);
    Failure { outcome: Outcome::Unavailable, message, ..refusal }
}
