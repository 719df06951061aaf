//! What the options of a stage on another server may be.

use std::path::Path;
use std::time::Duration;

use smartedit_core::stage::{GraphOptimization, LoadError, Remote, StageKind, StageOptions};
use tonic::transport::Uri;

use crate::backend::NAME;

/// Further attempts at a call.
const MAX_RETRIES: u32 = 10;

/// How long anything may take that has a limit of its own.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// The options for the engine, which must have nothing in them that it cannot take.
///
/// Device, precision and threads say how engines compute on this machine; a deployment may have them for its other stages.
///
/// # Errors
///
/// [`LoadError::Option`].
pub(crate) fn checked(stage: StageKind, options: &StageOptions) -> Result<&Remote, LoadError> {
    let wrong = |option, message: String| LoadError::Option { engine: NAME, stage, option, message };
    if !options.providers.is_empty() {
        return Err(wrong("providers", "execution providers are of ONNX Runtime".to_owned()));
    }
    if options.graph_optimization != GraphOptimization::default() {
        return Err(wrong("graph_optimization", "graphs are of ONNX Runtime".to_owned()));
    }
    if options.program.is_some() {
        return Err(wrong("file", "the model is the other server's: name it in `remote`".to_owned()));
    }
    let Some(remote) = &options.remote else {
        return Err(wrong("remote", "a table with `url` and `model` is needed".to_owned()));
    };
    check(remote).map_err(|message| wrong("remote", message))?;
    Ok(remote)
}

fn check(remote: &Remote) -> Result<(), String> {
    let is_tls = check_url(&remote.url)?;
    if remote.model.is_empty() {
        return Err("`model` is empty".to_owned());
    }
    let timeouts = [
        ("timeout_ms", remote.timeout_ms),
        ("connect_timeout_ms", remote.connect_timeout_ms),
        ("load_timeout_ms", remote.load_timeout_ms),
    ];
    for (name, milliseconds) in timeouts {
        if milliseconds == 0 || Duration::from_millis(milliseconds) > MAX_TIMEOUT {
            return Err(format!("`{name}` must be 1 to {}", MAX_TIMEOUT.as_millis()));
        }
    }
    if remote.retries > MAX_RETRIES {
        return Err(format!("`retries` must be {MAX_RETRIES} or less"));
    }
    if remote.max_message_bytes == 0 {
        return Err("`max_message_bytes` must be 1 or more".to_owned());
    }
    let tls = &remote.tls;
    let mut files = vec![("token_file", &remote.token_file)];
    files.extend([("tls.ca", &tls.ca), ("tls.certificate", &tls.certificate), ("tls.key", &tls.key)]);
    let named = files[1..].iter().any(|(_, file)| file.is_some()) || tls.server_name.is_some();
    if named && !is_tls {
        return Err("`tls` is for a `url` that begins with `https://`".to_owned());
    }
    if tls.certificate.is_some() != tls.key.is_some() {
        return Err("`tls.certificate` and `tls.key` need each other".to_owned());
    }
    let missing = files.iter().find(|(_, file)| file.as_deref().is_some_and(|file: &Path| !file.is_file()));
    match missing {
        Some((name, Some(file))) => Err(format!("`{name}`: there is no file {}", file.display())),
        _ => Ok(()),
    }
}

/// Whether the URL, which must be one of a server, says TLS.
fn check_url(url: &str) -> Result<bool, String> {
    let uri: Uri = url.parse().map_err(|e| format!("`url`: `{url}` is no URL: {e}"))?;
    let is_tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(format!("`url`: `{url}` must begin with `http://` or `https://`")),
    };
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    let has_more = !uri.path().trim_matches('/').is_empty() || uri.query().is_some();
    if !has_host || has_more || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(format!("`url`: `{url}` must be a host and a port and nothing else"));
    }
    Ok(is_tls)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use smartedit_core::stage::{Provider, RemoteTls};

    use super::*;

    fn refusal(options: &StageOptions) -> (&'static str, String) {
        match checked(StageKind::Denoiser, options) {
            Err(LoadError::Option { option, message, .. }) => (option, message),
            other => panic!("{other:?}"),
        }
    }

    fn remote(remote: Remote) -> StageOptions {
        StageOptions { remote: Some(remote), ..StageOptions::default() }
    }

    #[test]
    fn what_is_needed_is_named() {
        assert_eq!(refusal(&StageOptions::default()).0, "remote");
        let good = || Remote::new("https://host:1", "model");
        let cases = [
            (Remote::new("host:1", "model"), "url"),
            (Remote::new("ftp://host:1", "model"), "url"),
            (Remote::new("http://host:1/path", "model"), "url"),
            (Remote::new("http://user:pass@host:1", "model"), "url"),
            (Remote::new("http://", "model"), "url"),
            (Remote { model: String::new(), ..good() }, "model"),
            (Remote { timeout_ms: 0, ..good() }, "timeout_ms"),
            (Remote { connect_timeout_ms: u64::MAX, ..good() }, "connect_timeout_ms"),
            (Remote { load_timeout_ms: 0, ..good() }, "load_timeout_ms"),
            (Remote { retries: 11, ..good() }, "retries"),
            (Remote { max_message_bytes: 0, ..good() }, "max_message_bytes"),
            (Remote { token_file: Some(PathBuf::from("/nowhere/token")), ..good() }, "/nowhere/token"),
            (Remote { tls: named("x"), ..Remote::new("http://host:1", "model") }, "https://"),
            (
                Remote { tls: RemoteTls { key: Some("/key".into()), ..named("x") }, ..good() },
                "tls.certificate",
            ),
            (
                Remote { tls: RemoteTls { ca: Some("/nowhere/ca".into()), ..named("x") }, ..good() },
                "/nowhere/ca",
            ),
        ];
        for (wrong, word) in cases {
            let (option, message) = refusal(&remote(wrong));
            assert_eq!(option, "remote");
            assert!(message.contains(word), "no {word} in {message}");
        }
        assert!(checked(StageKind::Denoiser, &remote(good())).is_ok());
    }

    fn named(name: &str) -> RemoteTls {
        RemoteTls { server_name: Some(name.to_owned()), ..RemoteTls::default() }
    }

    #[test]
    fn another_engines_options_are_refused() {
        let plain = || remote(Remote::new("http://host:1", "model"));
        let providers = vec![Provider { name: "cuda".to_owned(), options: Default::default() }];
        assert_eq!(refusal(&StageOptions { providers, ..plain() }).0, "providers");
        let graph_optimization = GraphOptimization::Basic;
        assert_eq!(refusal(&StageOptions { graph_optimization, ..plain() }).0, "graph_optimization");
    }
}
