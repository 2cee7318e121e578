//! SIGHUP: the configuration is read again. What can change does; what cannot is said to want a restart; a
//! configuration that is wrong changes nothing.

use std::sync::PoisonError;

use super::{options, thresholds};
use crate::{config::Daemon, reference, run::Session};

/// Reads the configuration as it was read at the start.
pub type Reload = Box<dyn Fn() -> anyhow::Result<Daemon>>;

impl Session {
    /// Reads the configuration again.
    pub(in crate::run) fn reload(&mut self) {
        let Some(service) = &self.service else { return };
        service.supervisor.reloading();
        let new = match (service.reload)() {
            Ok(new) => new,
            Err(error) => {
                tracing::error!("{error:#}: nothing is changed");
                service.supervisor.ready();
                return;
            }
        };
        let changes = service.config.changes(&new);
        let (now, later): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, reloads)| *reloads);
        for (name, _) in &later {
            tracing::warn!("{name} has changed: that takes a restart");
        }
        let names: Vec<&str> = now.iter().map(|(name, _)| name.as_str()).collect();
        for error in self.apply(&new, &names) {
            tracing::error!("{error:#}");
        }
        match names.is_empty() {
            true => tracing::info!("the configuration was read again: nothing has changed"),
            false => tracing::info!("the configuration was read again: changed {}", names.join(", ")),
        }
        if let Some(service) = &self.service {
            service.supervisor.ready();
        }
    }

    /// What is new takes effect; what went wrong with it.
    fn apply(&mut self, new: &Daemon, names: &[&str]) -> Vec<anyhow::Error> {
        let mut errors = Vec::new();
        let Some(service) = &mut self.service else { return errors };
        service.level.set(new.log_level);
        *service.options.lock().unwrap_or_else(PoisonError::into_inner) = options(new);
        // Whatever it names may be new though its name is not.
        if let Err(error) = service.access.replace(new.web_config_file.as_deref()) {
            errors.push(anyhow::Error::from(error).context("TLS and authentication stay as they were"));
        }
        if let Err(error) = service.hooks.tell(&new.webhooks) {
            errors.push(error);
        }
        let mut kept = service.config.clone();
        self.sweep.set(thresholds(&new.session));
        if names.contains(&"ntp") {
            match reference::Watch::start(new.session.ntp.clone()) {
                Ok(watch) => self.references = Some(watch),
                Err(error) => {
                    errors.push(anyhow::Error::from(error).context("the NTP servers stay as they were"));
                }
            }
        }
        kept.values.retain(|(name, _)| !names.contains(&name.as_str()));
        kept.values.extend(new.values.iter().filter(|(name, _)| names.contains(&name.as_str())).cloned());
        service.config = kept;
        errors
    }
}
