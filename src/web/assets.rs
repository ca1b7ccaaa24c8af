//! Scripts and styles, part of the program: no request ever leaves the machine for them.

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::error::ApiError;

/// One file, served as it stands.
struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

const ASSETS: [Asset; 4] = [
    Asset { name: "app.css", kind: "text/css; charset=utf-8", bytes: include_bytes!("../../assets/app.css") },
    Asset { name: "app.js", kind: "text/javascript; charset=utf-8", bytes: include_bytes!("../../assets/app.js") },
    Asset {
        name: "htmx.js",
        kind: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../../assets/vendor/htmx-4.0.1.min.js"),
    },
    Asset { name: "icon.svg", kind: "image/svg+xml", bytes: include_bytes!("../../assets/icon.svg") },
];

/// The address of an asset; it changes with the content, so that the answer can be kept forever.
pub(super) fn url(name: &str) -> String {
    let hash = ASSETS.iter().find(|asset| asset.name == name).map(|asset| digest(asset.bytes)).unwrap_or_default();
    format!("/assets/{name}?v={}", hash.get(..16).unwrap_or_default())
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// `GET /assets/{name}`
pub(super) async fn serve(Path(name): Path<String>) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => {
            let kept = "public, max-age=31536000, immutable";
            ([(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, kept)], asset.bytes).into_response()
        }
        None => ApiError::not_found().into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendored_htmx_is_the_one_its_readme_names() {
        let readme = include_str!("../../assets/vendor/README.md");
        let htmx = ASSETS.iter().find(|asset| asset.name == "htmx.js").expect("vendored");
        assert!(readme.contains(&digest(htmx.bytes)), "assets/vendor/README.md has another sha256");
        assert!(String::from_utf8_lossy(htmx.bytes).contains("this.version=\"4.0.1\""));
    }

    #[test]
    fn nothing_of_ours_is_inline_evaluated_or_from_elsewhere() {
        let script = include_str!("../../assets/app.js");
        for forbidden in ["eval(", "new Function", "innerHTML", "http://", "https://"] {
            assert!(!script.contains(forbidden), "app.js has {forbidden}");
        }
        assert!(!include_str!("../../assets/app.css").contains("url("));
    }
}
