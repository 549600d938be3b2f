//! The invariants that hold after any injected fault.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::Read as _,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use flate2::read::MultiGzDecoder;
use jiff::civil::Date;
use moesync::{
    config::SourceKind,
    ledger::{self, LedgerError},
    partition::Settled,
    signature,
};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{APP, Bench, CANARY, Series, files};

impl Bench {
    /// The archive as the vendor made it.
    pub async fn truth(&self, series: &Series, date: Date) -> Vec<u8> {
        let key = series.key(date);
        let known = self.truths.lock().unwrap().get(&key).cloned();
        match known {
            Some(bytes) => bytes,
            None => {
                let bytes = self.ask_twin(series, date).await;
                self.truths.lock().unwrap().insert(key, bytes.clone());
                bytes
            }
        }
    }

    async fn ask_twin(&self, series: &Series, date: Date) -> Vec<u8> {
        let file_name = series.file_name(date);
        let signature = signed(&file_name);
        let client = &self.client;
        let url = |path: String| self.twin.url().join(&path).unwrap();
        let request = match series.source {
            SourceKind::CampaignReport => {
                client.get(url(format!("campaign_reports/rest_api/{APP}/{file_name}"))).header("Signature", signature)
            }
            _ => client.get(url(format!("dailyCampaignReportDump/{APP}/{file_name}?Signature={signature}"))),
        };
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{file_name}: {}", answer.status());
        answer.bytes().await.unwrap().to_vec()
    }

    /// The files at the destination, by key: objects, versions and manifests, without staged, quarantined and derived ones.
    pub fn stored_files(&self) -> BTreeMap<String, Vec<u8>> {
        let root = &self.root;
        let keys = files(root).into_iter().map(|path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        let is_final = |key: &String| {
            !["_staging/", "_quarantine/", "tables/"].iter().any(|folder| key.starts_with(folder))
                && !key.contains("/.moesync-")
        };
        keys.filter(is_final).map(|key| (key.clone(), fs::read(root.join(&key)).unwrap())).collect()
    }

    /// The files in a folder of the destination, such as `_quarantine`.
    pub fn kept_in(&self, folder: &str) -> Vec<String> {
        let root = &self.root;
        let found = files(&root.join(folder));
        found.into_iter().map(|path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()).collect()
    }

    /// The invariants at any moment, also after a kill: each object is what the vendor made and what its manifest says,
    /// and each stored row has both.
    pub async fn check_stored_files(&self) {
        let stored_files = self.stored_files();
        let due: HashMap<_, _> =
            self.due().into_iter().map(|(series, date)| (series.key(date), (series, date))).collect();
        let objects = stored_files.keys().filter(|key| !is_manifest(key));
        for key in objects {
            if key.ends_with(".ndjson.gz") {
                lines(&stored_files[key]);
                continue;
            }
            let (series, date) = *due.get(key).unwrap_or_else(|| panic!("`{key}` belongs to no series"));
            assert!(stored_files[key] == self.truth(series, date).await, "`{key}` is not what the vendor made");
        }
        for (key, manifest) in stored_files.iter().filter(|(key, _)| is_manifest(key)) {
            let manifest: Value = serde_json::from_slice(manifest).unwrap_or_else(|error| panic!("`{key}`: {error}"));
            let subject = manifest["key"].as_str().unwrap();
            let object = stored_files.get(subject).unwrap_or_else(|| panic!("`{key}` stands beside nothing"));
            assert_eq!(*key, manifest_key(subject));
            assert_eq!(manifest["sha256"], hash(object), "`{key}` does not fit");
            assert_eq!(manifest["size"], object.len(), "`{key}` does not fit");
            if manifest["format"] == "ndjson.gz" {
                assert_eq!(manifest["records"], lines(object), "`{key}` does not fit");
            }
        }
        let ledger = match ledger::open_read_only(&self.ledger()).await {
            Ok(Some(ledger)) => ledger,
            Ok(None) => return,
            // Its process was killed while creating it: nothing was recorded yet.
            Err(LedgerError::Unavailable { message, .. }) if self.path("ledger/moesync.db-journal").exists() => {
                assert!(message.contains("`moesync sync` or `moesync run` finish it"), "{message}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        for entry in ledger.entries().await.unwrap() {
            if entry.settled == Settled::Stored {
                let stored = entry.object.unwrap();
                let object = stored_files.get(&stored.key).unwrap_or_else(|| panic!("stored, but no `{}`", stored.key));
                assert_eq!(stored.sha256, hash(object));
                assert!(
                    stored_files.contains_key(&manifest_key(&stored.key)),
                    "stored, but `{}` has no manifest",
                    stored.key
                );
            }
        }
    }

    /// All invariants, with everything stored. Ends with a `sync` that must find nothing to do.
    pub async fn oracle(&self) {
        self.check_stored_files().await;
        let status = self.status().await;
        let due: BTreeSet<String> = self.due().iter().map(|(series, date)| series.key(*date)).collect();
        for partition in &status {
            assert_eq!(partition["state"], "stored", "{partition}");
        }
        let keys = status.iter().map(|partition| partition["key"].as_str().unwrap().to_owned());
        let (_snapshots, archives): (BTreeSet<_>, BTreeSet<_>) = keys.partition(|key| key.ends_with(".ndjson.gz"));
        assert_eq!(archives, due, "what should be stored is not, or the other way round");

        let (requests, stored_files) = (self.requests(), self.stored_files());
        self.run(&["-vv", "sync"]).await.expect(0);
        assert_eq!(self.requests(), requests, "a second run has made requests");
        assert!(self.stored_files() == stored_files, "a second run has changed the destination");
        assert_eq!(self.kept_in("_staging"), [""; 0], "leftovers");
        self.check_secrets();
    }

    /// Everything that a daemon serves at `url`, for [`Bench::check_secrets`].
    pub async fn note_pages(&self, url: &str) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut paths: Vec<_> =
            ["/", "/metrics", "/livez", "/readyz", "/nowhere", "/api/nowhere"].map(str::to_owned).into();
        paths.extend(["overview", "partitions", "plan", "openapi.json"].map(|name| format!("/api/v1/{name}")));
        for (series, date) in self.due() {
            let report = format!("workspace=acme&report={}", series.id);
            paths.push(format!("/report?{report}"));
            paths.push(format!("/api/v1/partition?{report}&date={date}"));
        }
        for path in paths {
            let answer = client.get(format!("{url}{path}")).send().await.unwrap();
            let (status, headers) = (answer.status(), format!("{:?}", answer.headers()));
            let body = answer.text().await.unwrap();
            assert!(status.is_success() || path.contains("nowhere") || path == "/readyz", "{path}: {status}: {body}");
            assert!(body.len() > 2, "{path} is empty");
            self.note_printed(&format!("{path}: {headers}\n{body}"));
        }
    }

    /// Neither the key nor a signature is in anything that was printed or written, except the key's own file.
    pub fn check_secrets(&self) {
        let basic = BASE64_STANDARD.encode(format!("{APP}:{CANARY}"));
        let mut secrets = vec![CANARY.to_owned(), basic, super::s3_server::SECRET.to_owned()];
        secrets.extend(self.due().iter().map(|(series, date)| signed(&series.file_name(*date))));
        let is_clean =
            |text: &[u8]| secrets.iter().all(|secret| memchr::memmem::find(text, secret.as_bytes()).is_none());
        for printed in self.printed.lock().unwrap().iter() {
            assert!(is_clean(printed.as_bytes()), "a secret was printed:\n{printed}");
        }
        for path in files(self.folder.path()).into_iter().filter(|path| !path.ends_with("secret-key")) {
            assert!(is_clean(&fs::read(&path).unwrap()), "a secret is in {}", path.display());
        }
    }
}

fn signed(file_name: &str) -> String {
    signature::sign(APP, file_name, &CANARY.into()).expose_secret().to_owned()
}

/// The number of lines of a snapshot, each of which must be a JSON object.
fn lines(snapshot: &[u8]) -> usize {
    let mut text = String::new();
    MultiGzDecoder::new(snapshot).read_to_string(&mut text).unwrap();
    let is_object = |line: &str| serde_json::from_str::<Value>(line).unwrap().is_object();
    assert!(text.lines().all(is_object) && (text.is_empty() || text.ends_with('\n')), "a snapshot is not whole");
    text.lines().count()
}

fn is_manifest(key: &str) -> bool {
    key.ends_with(".manifest.json")
}

pub fn manifest_key(key: &str) -> String {
    let (folder, name) = key.rsplit_once('/').unwrap();
    format!("{folder}/_{name}.manifest.json")
}

pub fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
