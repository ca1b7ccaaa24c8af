//! Credentials of a broker that may renew a login: which one a request goes with, and what is told of one that is over.

use std::path::PathBuf;

use symphony_core::broker::Provider;
use symphony_core::broker::login::Login;
use symphony_core::workflow::{Models, ProviderRule};

use super::Broker;
use super::credential::{self, Credential, NoCredential, Source};
use crate::agent::redact::Learned;

impl Broker {
    /// The credential for a request. A login that is over, or nearly, is renewed first where the workflow says so; one that
    /// is not renewed is good until its end.
    pub(super) async fn credential(&self, provider: Provider, models: &Models) -> Result<Credential, NoCredential> {
        let rule = models.of(provider);
        let found = credential::find(provider, rule, &self.environment).await;
        let Some((login, path, source)) = self.renewed_here(provider, rule, &found) else { return found };
        let Err((why, again)) = self.renewals.renew(login, path).await else {
            return credential::find(provider, rule, &self.environment).await;
        };
        // Whoever waits for a credential elsewhere looks again then.
        if let Some(again) = again {
            self.standings.tell_after(again);
        }
        // Its owner may have logged in meanwhile.
        match credential::find(provider, rule, &self.environment).await {
            Err(NoCredential::Expired { .. }) => {
                Err(NoCredential::NotRenewed { source_: source, why: why.to_string() })
            }
            found => found,
        }
    }

    /// The credential that a request would find, without asking anybody; `None`: a login that the next request renews.
    pub(super) async fn glance(&self, models: &Models, provider: Provider) -> Result<Option<Credential>, NoCredential> {
        let rule = models.of(provider);
        let found = credential::find(provider, rule, &self.environment).await;
        if !matches!(found, Err(NoCredential::Expired { .. })) {
            return found.map(Some);
        }
        let Some((login, path, source)) = self.renewed_here(provider, rule, &found) else { return found.map(Some) };
        match self.renewals.glance(login, &path).await {
            Ok(()) => Ok(None),
            Err(why) => Err(NoCredential::NotRenewed { source_: source, why: why.to_string() }),
        }
    }

    /// Whether there is a credential for `provider`, and which, or why there is none.
    pub async fn access(&self, models: &Models, provider: Provider) -> Result<String, String> {
        let rule = models.of(provider);
        let found = credential::find(provider, rule, &self.environment).await;
        let Some((login, path, source)) = self.renewed_here(provider, rule, &found) else {
            return found.map(|found| found.source.to_string()).map_err(|none| none.to_string());
        };
        match (self.renewals.glance(login, &path).await, found) {
            (Ok(()), Ok(_)) => Ok(format!("{source}, which symphony renews before it ends")),
            (Ok(()), Err(_)) => Ok(format!("{source}, which has expired; symphony renews it for the next request")),
            (Err(why), Ok(_)) => Ok(format!("{source}, until it ends: {why}")),
            (Err(why), Err(_)) => Err(NoCredential::NotRenewed { source_: source, why: why.to_string() }.to_string()),
        }
    }

    /// The login in use, if it is renewed here.
    fn renewed_here(
        &self,
        provider: Provider,
        rule: &ProviderRule,
        found: &Result<Credential, NoCredential>,
    ) -> Option<(Login, PathBuf, Source)> {
        let is_login = match found {
            Ok(credential) => credential.source.is_login(),
            Err(none) => matches!(none, NoCredential::Expired { .. }),
        };
        let login = Login::of(provider).filter(|_| rule.refresh && is_login)?;
        let (path, source) = credential::login_file(provider, &self.environment)?;
        Some((login, path, source))
    }

    /// The tokens of logins that were renewed here, for whoever writes anything down.
    pub fn learned(&self) -> &Learned {
        &self.learned
    }

    /// No further login is renewed; one that is being renewed is waited for, or it would be lost.
    pub async fn end(&self) {
        self.renewals.end().await;
    }
}
