//! The signature of a request for an archive.
//!
//! This file owns the formula. It must not know how the signature is sent: `campaign_report` uses a header,
//! `daily_dump` the query.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// Signs a file name: `hex(sha256(APP_ID + "|" + FILENAME + "|" + SECRET_KEY))`, lower case, over the UTF-8 bytes of
/// the *unescaped* file name (Daily Campaign Report API and Campaign Report API, "Generating Signature").
///
/// The result is a credential for that one file, so it is a secret.
pub fn sign(app_id: &str, file_name: &str, secret_key: &SecretString) -> SecretString {
    let digest = Sha256::new()
        .chain_update(app_id)
        .chain_update("|")
        .chain_update(file_name)
        .chain_update("|")
        .chain_update(secret_key.expose_secret())
        .finalize();
    hex::encode(digest).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vectors_are_reproduced() {
        let vectors = [
            (
                "YOUR-API-ID",
                "20160302.zip",
                "YOUR-SECRET-KEY",
                "b81b9b69a9762f734a15306e53c9d7f6a7d829d2cf197e540091b728ebdf753e",
            ),
            (
                "MAZW5N1IMMSH5H67C3T9KBHA",
                "Report_test_20210217.zip",
                "s3cr3t",
                "1debb3527e02ca97d6b601841205efe96617aada8c5b876d6e176551e7b3e6c0",
            ),
            (
                "MAZW5N1IMMSH5H67C3T9KBHA",
                "Report_-_test_20210217.zip",
                "pipe|in|key",
                "7e89e03528ca568e759c21a3401e1bb69831b88f69c61bbcef30bf2c1a23d3a8",
            ),
            (
                "APP-1",
                "Año_nuevo_50%_off_20251231.zip",
                "k",
                "8b83fb74075bfdbd21a93896ad933a80f8ab9b615caa9ac5a4656008bad53a54",
            ),
        ];
        for (app_id, file_name, key, expected) in vectors {
            assert_eq!(sign(app_id, file_name, &key.into()).expose_secret(), expected, "{file_name}");
        }
    }
}
