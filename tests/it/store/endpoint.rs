//! A folder of a bucket at any S3 endpoint, seen only through the S3 API.

use futures::TryStreamExt;
use moesync::config;
use object_store::ObjectStore;

use crate::support::s3_server::{BUCKET, KEY_ID, SECRET, Server};

/// A folder of a bucket, accessed only through the S3 API.
#[derive(Clone)]
pub struct Endpoint {
    url: String,
    bucket: String,
    pub folder: String,
    /// Id and secret of the key; else they come from the environment, with the region, as in production.
    key: Option<(&'static str, &'static str)>,
}

impl Endpoint {
    pub fn of_environment() -> Option<Self> {
        let url = std::env::var("MOESYNC_TEST_S3_ENDPOINT").ok()?;
        let bucket = std::env::var("AWS_BUCKET").expect("AWS_BUCKET names the bucket to test in");
        Some(Endpoint { url, bucket, folder: String::new(), key: None })
    }

    /// Used if the environment names none.
    pub fn of(server: &Server) -> Self {
        let (url, bucket) = (server.url.clone(), BUCKET.to_owned());
        Endpoint { url, bucket, folder: String::new(), key: Some((KEY_ID, SECRET)) }
    }

    pub fn config(&self) -> config::DestinationSettings {
        let mut options = vec![("aws_endpoint", self.url.as_str()), ("allow_http", "true")];
        if let Some((id, secret)) = self.key {
            options.extend([("aws_region", "us-east-1"), ("aws_access_key_id", id), ("aws_secret_access_key", secret)]);
        }
        let options = options.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let location = format!("s3://{}/{}", self.bucket, self.folder).parse().unwrap();
        config::DestinationSettings {
            name: "lake".to_owned(),
            location,
            options,
            fsync: true,
            ca_file: None,
            place: String::new(),
        }
    }

    fn store(&self) -> object_store::prefix::PrefixStore<object_store::aws::AmazonS3> {
        let mut store = object_store::aws::AmazonS3Builder::from_env()
            .with_endpoint(&self.url)
            .with_allow_http(true)
            .with_bucket_name(&self.bucket);
        if let Some((id, secret)) = self.key {
            store = store.with_region("us-east-1").with_access_key_id(id).with_secret_access_key(secret);
        }
        object_store::prefix::PrefixStore::new(store.build().unwrap(), self.folder.as_str())
    }

    pub async fn put(&self, key: &str, bytes: &[u8]) {
        let key = object_store::path::Path::parse(key).unwrap();
        self.store().put_opts(&key, bytes.to_vec().into(), object_store::PutOptions::default()).await.unwrap();
    }

    pub async fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> =
            self.store().list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
        keys.sort();
        keys
    }
}
