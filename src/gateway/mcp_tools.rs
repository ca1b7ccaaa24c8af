//! The tools as rmcp serves them: listed, checked, forwarded to the run, answered.
//!
//! Knows the protocol's shapes only; names, rules and texts are in `agent::tools`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorCode, Implementation, ListToolsResult,
    MetaObject, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::tools::{self, Answer, BadCall, NO_TURN_TEXT, RUN_ENDED_TEXT, ToolCall, ToolRequest};

/// How long the run may take to answer a call.
const ANSWER: Duration = Duration::from_secs(60);

/// One run's tools.
#[derive(Clone)]
pub(super) struct Tools {
    calls: mpsc::Sender<ToolCall>,
    listing: Arc<watch::Sender<bool>>,
    taking: Arc<AtomicBool>,
    closed: CancellationToken,
}

impl Tools {
    pub(super) fn new(
        calls: mpsc::Sender<ToolCall>,
        listing: watch::Sender<bool>,
        taking: Arc<AtomicBool>,
        closed: CancellationToken,
    ) -> Self {
        Self { calls, listing: Arc::new(listing), taking, closed }
    }

    /// The run's answer; `Err` is a tool error.
    async fn ask(&self, request: ToolRequest) -> Result<Answer, Answer> {
        if !self.taking.load(Ordering::Acquire) && !self.closed.is_cancelled() {
            return Err(NO_TURN_TEXT.into());
        }
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.calls.send(ToolCall { request, reply }).await.map_err(|_| Answer::from(RUN_ENDED_TEXT))?;
            answer.await.map_err(|_| Answer::from(RUN_ENDED_TEXT))?
        };
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(RUN_ENDED_TEXT.into()),
            answered = tokio::time::timeout(ANSWER, asked) => match answered {
                Ok(answered) => answered,
                Err(_) => Err("symphony did not answer in time; try again".into()),
            },
        }
    }
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let implementation = Implementation::new("symphony", env!("CARGO_PKG_VERSION"));
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(implementation)
            .with_instructions(
                "Report to symphony: mark_done when the issue is finished, transition to hand it on to another state, \
                 request_human_steering to ask, propose_issue for work that is not yours.",
            )
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        self.listing.send_replace(true);
        let tools = tools::described().map(|(name, description, schema)| {
            let schema = match schema {
                Value::Object(schema) => schema,
                _ => serde_json::Map::new(),
            };
            // Without this mark some agents hide the tools behind a search.
            let meta = serde_json::Map::from_iter([("anthropic/alwaysLoad".to_owned(), Value::Bool(true))]);
            Tool::new_with_raw(name, Some(description.into()), Arc::new(schema)).with_meta(MetaObject(meta))
        });
        Ok(ListToolsResult::with_all_items(tools.into()))
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::Object(call.arguments.unwrap_or_default());
        let answered = match tools::parse(&call.name, &arguments) {
            Ok(request) => self.ask(request).await,
            Err(unknown @ BadCall::UnknownTool(_)) => {
                return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, unknown.to_string(), None));
            }
            Err(BadCall::Argument(message)) => Err(message.into()),
        };
        let (mut result, data) = match answered {
            Ok(answer) => (CallToolResult::success(vec![ContentBlock::text(answer.text)]), answer.data),
            Err(answer) => (CallToolResult::error(vec![ContentBlock::text(answer.text)]), answer.data),
        };
        result.structured_content = data;
        Ok(result.into())
    }
}
