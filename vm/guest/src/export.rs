//! `export`: not there yet; refused.
use crate::mux::MuxStream;
use crate::serve::{Guest, refuse};
use crate::wire::{ExportRequest, Refusal, RefusalKind};
use std::sync::Arc;
pub(crate) async fn serve(_guest: &Arc<Guest>, stream: MuxStream, _request: ExportRequest) {
    refuse(stream, Refusal::new(RefusalKind::BadRequest, "not supported yet")).await;
}
