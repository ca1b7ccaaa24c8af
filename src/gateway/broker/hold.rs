//! One request past a provider that asked to wait: held while that is short, else its run is told to end. Nothing is asked
//! meanwhile, whatever the agent does: no retry of an agent reaches a provider that asked for none.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use symphony_core::board::StopCause;
use symphony_core::broker::quota::{self, Pause, Trouble};
use symphony_core::broker::{IN_VAIN_MOST, Provider, Refusal};
use tokio::sync::watch;
use tokio::time::Instant;

use super::credential::{Credential, Fingerprint};
use super::forward::{Answer, Outgoing};
use super::standing::{Leave, Standings};
use super::{Broker, Door};

/// A request that is held; dropping it says that it no longer is.
struct Held(watch::Sender<usize>);

impl Held {
    fn of(door: &Door) -> Self {
        door.0.held.send_modify(|held| *held += 1);
        Self(door.0.held.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.send_modify(|held| *held = held.saturating_sub(1));
    }
}

impl Door {
    /// Forwards the request as soon as its provider takes requests, and again when it asked to wait.
    pub(super) async fn in_turn(&self, outgoing: Outgoing) -> Result<Response<Body>, Refusal> {
        let (provider, metered) = (outgoing.route.provider, outgoing.route.call.is_metered());
        let (standings, mut began) = (&self.0.broker.standings, Instant::now());
        let mut held = None;
        loop {
            let credential = self.credential(provider, metered).await?;
            let of = credential.fingerprint();
            match standings.glance(&of) {
                Leave::Go(_) => {}
                Leave::Never(said) => return Err(self.shut_out(provider, metered, said)),
                Leave::Until(at, pause) if at.saturating_duration_since(began) > self.patience() => {
                    return Err(self.sent_away(provider, metered, at, pause, of).await);
                }
                Leave::Until(at, _) => {
                    held.get_or_insert_with(|| Held::of(self));
                    tokio::time::sleep_until(at).await;
                    continue;
                }
            }
            held = None;
            // Before its turn: one that goes alone must not keep the others waiting while it waits for its budget.
            let asked = Instant::now();
            let mut account = self.account(&outgoing).await?;
            began += asked.elapsed();
            // Minutes may have passed, and what the provider or the login's owner did meanwhile counts.
            let credential = self.credential(provider, metered).await?;
            let of = credential.fingerprint();
            if standings.goes_alone(&of) {
                held = Some(Held::of(self));
            }
            // What is set aside comes free while it waits again.
            let Leave::Go(_permit) = standings.leave(&of).await else { continue };
            held = None;
            let sent = standings.now();
            // Account and permit are kept until what a refusal means is known to all: whoever they let go looks again.
            let Answer { response, credential, trouble } =
                self.forward(&outgoing, credential, &mut account, sent).await?;
            let of = credential.fingerprint();
            match trouble.map(Trouble::pause) {
                // Counting tokens has limits of its own, and so may a key for other calls.
                Some(Some(_)) if !metered => return Ok(response),
                Some(None) if !metered => {
                    return Err(self.shut_out(provider, metered, refused(provider, &credential)));
                }
                Some(Some((wait, pause))) => {
                    standings.wait(&of, provider, sent, wait, pause).await;
                    self.was_refused(of, wait);
                    let said = || {
                        let (name, status, seconds) = (provider.name(), response.status().as_u16(), wait.as_secs_f64());
                        format!("{name} answered {status} to {}: nothing is asked for {seconds:.0} s", outgoing.model)
                    };
                    self.tell("model_limited", said);
                }
                // One request must not shut out all others by something that only it asks for.
                Some(None) if standings.answers(&of).is_some() && self.is_taken(provider, &credential).await => {
                    let name = provider.name();
                    let said = format!("{name} refuses this request, though it takes {} for others", credential.source);
                    self.tell("model_refused", || said.clone());
                    return Err(Refusal::new(403, said));
                }
                Some(None) => {
                    let said = refused(provider, &credential);
                    standings.refuse(&of, provider, said.clone()).await;
                    return Err(self.shut_out(provider, metered, said));
                }
                None => {
                    // An answer that begins may yet break off with a wish to wait: what becomes of it is seen as it passes.
                    match response.status() {
                        status if !metered || status.is_server_error() => {}
                        status if status.is_success() => standings.was_good(&of),
                        _ => standings.answered(&of, sent).await,
                    }
                    return Ok(response);
                }
            }
        }
    }

    /// How long one request is held at most, for its provider, and for room in a budget.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.0.models.hold_ms)
    }

    /// The credential to use. That there is none, or none any more, ends the run of an agent that needs it.
    pub(super) async fn credential(&self, provider: Provider, metered: bool) -> Result<Credential, Refusal> {
        let found = self.0.broker.credential(provider, &self.0.models).await;
        found.map_err(|none| {
            // An agent that was told of no way to this provider only looks around.
            let needed = !none.is_absent() || self.0.offered.get().is_some_and(|offered| offered.contains(&provider));
            self.shut_out(provider, metered && needed, none.to_string())
        })
    }

    pub(super) fn shut_out(&self, provider: Provider, ends_run: bool, said: String) -> Refusal {
        self.tell("model_login", || said.clone());
        if ends_run {
            self.end_run(StopCause::ProviderLogin(provider));
        }
        Refusal::new(401, said)
    }

    /// An issue whose own requests are refused again and again, while others are answered, asks for what is never answered:
    /// its agent hears of a failure then, which counts as one.
    async fn sent_away(
        &self,
        provider: Provider,
        ends_run: bool,
        at: Instant,
        pause: Pause,
        of: Fingerprint,
    ) -> Refusal {
        let said = pause.words(provider, Standings::of_the_world(at));
        if ends_run && pause == Pause::Asked && self.is_in_vain(of) {
            let said = self.in_vain(&said);
            self.tell("model_limited", || said.clone());
            return Refusal::new(400, said);
        }
        self.tell("model_limited", || said.clone());
        if ends_run {
            self.pause_run(provider).await;
        }
        Refusal::new(429, said)
    }

    /// Whether the issue was sent away often enough with this credential, while others were answered.
    pub(super) fn is_in_vain(&self, of: Fingerprint) -> bool {
        let answers = self.0.broker.standings.answers(&of).unwrap_or_default();
        // Once it is, the run's other requests, and tries of the same one, are no reason to wait again.
        if self.0.broker.in_vain.is_enough(&self.0.purse.payer.issue, of, answers) {
            self.0.vain.store(true, Ordering::Relaxed);
        }
        self.0.vain.load(Ordering::Relaxed)
    }

    /// Says so behind what was said.
    pub(super) fn in_vain(&self, said: &str) -> String {
        format!("{said}; it said so to {IN_VAIN_MOST} runs of this issue in a row and answered others: a failure")
    }

    /// The run ends over its provider's wish to wait; it counts once, if a request of its own was refused for a short while.
    /// That is so at once; what comes back is done when the journal has it.
    pub(super) fn pause_run(&self, provider: Provider) -> impl Future<Output = ()> + use<> {
        let first = self.end_run(StopCause::ProviderPaused(provider));
        let own = self.0.refused.lock().unwrap_or_else(PoisonError::into_inner).filter(|_| first);
        let Broker { in_vain, standings, .. } = &self.0.broker;
        let counted = own.map(|of| {
            let answers = standings.answers(&of).unwrap_or_default();
            in_vain.sent_away(&self.0.purse.payer.issue, of, answers)
        });
        async move {
            if let Some(counted) = counted {
                counted.await;
            }
        }
    }

    /// A request of the run was refused for so long. A longer wait is no matter of one request.
    pub(super) fn was_refused(&self, of: Fingerprint, wait: Duration) {
        *self.0.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(of).filter(|_| wait <= quota::LAST);
    }

    /// One was answered.
    pub(super) fn was_answered(&self) {
        self.0.vain.store(false, Ordering::Relaxed);
        *self.0.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The run hears of it before its agent does, so what that makes of it is no failure. The first reason stands; whether
    /// it is this one.
    pub(super) fn end_run(&self, cause: StopCause) -> bool {
        self.0.over.send_if_modified(|over| match over {
            Some(_) => false,
            None => {
                *over = Some(cause);
                true
            }
        })
    }
}

/// A provider's own words may quote the key.
pub(super) fn refused(provider: Provider, credential: &Credential) -> String {
    format!("{} refuses {}: {}", provider.name(), credential.source, credential.source.remedy())
}
