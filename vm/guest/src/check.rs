//! `check`: not there yet; refused.
use crate::mux::MuxStream;
use crate::serve::{Guest, refuse};
use crate::wire::{CheckRequest, Refusal, RefusalKind};
use std::sync::Arc;
pub(crate) async fn check(_guest: &Arc<Guest>, stream: MuxStream, _request: CheckRequest) {
    refuse(stream, Refusal::new(RefusalKind::BadRequest, "not supported yet")).await;
}
