//! SIGHUP: the configuration is read again. What can change does; what cannot is said to want a restart; a
//! configuration that is wrong changes nothing.

use std::sync::PoisonError;

use super::{Service, options};
use crate::{config::Daemon, outputs::Hangup};

/// Reads the configuration as it was read at the start.
pub type Reload = Box<dyn Fn() -> anyhow::Result<Daemon>>;

impl Service {
    /// Reads the configuration again; what of it the session is to apply.
    pub(super) fn reload(&mut self) -> Hangup {
        self.supervisor.reloading();
        let changed = match (self.reload)() {
            Ok(new) => self.change_to(new),
            Err(error) => {
                tracing::error!("{error:#}: nothing is changed");
                Hangup::Stays
            }
        };
        self.supervisor.ready();
        changed
    }

    fn change_to(&mut self, new: Daemon) -> Hangup {
        let (now, later): (Vec<_>, Vec<_>) =
            self.config.changes(&new).into_iter().partition(|(_, reloads)| *reloads);
        for (name, _) in &later {
            tracing::warn!("{name} has changed: that takes a restart");
        }
        let names: Vec<&str> = now.iter().map(|(name, _)| name.as_str()).collect();
        for error in self.apply(&new) {
            tracing::error!("{error:#}");
        }
        let kept = &mut self.config.values;
        kept.retain(|(name, _)| !names.contains(&name.as_str()));
        kept.extend(new.values.iter().filter(|(name, _)| names.contains(&name.as_str())).cloned());
        match names.is_empty() {
            true => tracing::info!("the configuration was read again: nothing has changed"),
            false => tracing::info!("the configuration was read again: changed {}", names.join(", ")),
        }
        Hangup::Changes(Box::new(new.session))
    }

    /// What is new takes effect; what went wrong with it.
    fn apply(&mut self, new: &Daemon) -> Vec<anyhow::Error> {
        let mut errors = Vec::new();
        self.level.set(new.log_level);
        *self.options.lock().unwrap_or_else(PoisonError::into_inner) = options(new);
        // The files that it names may be new though their names are not.
        if let Err(error) = self.access.replace(new.web_config_file.as_deref()) {
            errors.push(anyhow::Error::from(error).context("TLS and authentication stay as they were"));
        }
        if let Err(error) = self.hooks.configure(&new.webhooks) {
            errors.push(error);
        }
        errors
    }
}
