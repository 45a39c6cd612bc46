//! What a running server takes of its settings: the list of clients, the protection of data channels, and the log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bowline::model::{EffectiveProtection, ExportName, Protection, ProtectionMinima};
use bowline::server::{Server, load_clients_unless_blank};

use super::settings::{Settings, Source};
use crate::cli::log;

/// The settings that a server runs with.
pub(super) struct InForce {
    pub(super) source: Source,
    pub(super) settings: Settings,
    pub(super) clients: PathBuf,
}

impl InForce {
    /// Reads everything again. What is broken leaves what was in force before.
    pub(super) fn reload(&mut self, server: &Server) {
        self.reload_file(server);
        reload_clients(server, &self.clients);
    }

    fn reload_file(&mut self, server: &Server) {
        let Some(file) = self.source.file() else { return };
        let new = match self.source.settle() {
            Ok(new) => new,
            Err(failure) => {
                tracing::warn!(why = failure.line(), "the old settings stay in force");
                return;
            }
        };
        // First, so that what follows is shown as the file wants it.
        if new.log != self.settings.log {
            let taken = log::show_as_in_file(new.log.as_deref());
            tracing::info!(taken, "the file's log filter; a flag or a variable goes before it");
        }
        if new.log_names != self.settings.log_names {
            self.settings.log_names = new.log_names;
            server.set_log_names(new.log_names);
            tracing::info!(names = new.log_names, "whether the log may name files");
        }
        let fixed = self.settings.fixed_differences(&new);
        if !fixed.is_empty() {
            tracing::warn!(settings = fixed.join(", "), "settings have changed that need a restart");
        }
        let is_changed = new.protection != self.settings.protection
            || new.export_protection != self.settings.export_protection;
        // Those that need a restart are compared with what runs, each time.
        self.settings.log = new.log;
        if is_changed {
            self.settings.protection = new.protection;
            self.settings.export_protection = new.export_protection;
            server.set_protection(self.minima());
            tracing::info!("the protection of data channels is in force");
            tell(&server.effective_protection());
        }
        tracing::info!(file = %file.display(), "the configuration file was read again");
    }

    /// What is demanded of data channels: an export that is not named demands nothing of its own.
    fn minima(&self) -> ProtectionMinima {
        let names = self.settings.exports.iter().map(|(name, _)| (name.clone(), Protection::Clear));
        let mut exports: BTreeMap<ExportName, Protection> = names.collect();
        for (name, least) in &self.settings.export_protection {
            // One that is not served can only be served after a restart.
            if let Some(demanded) = exports.get_mut(name) {
                *demanded = (*demanded).max(*least);
            }
        }
        ProtectionMinima { server: self.settings.protection, exports }
    }
}

/// A list that does not parse leaves the old one in force.
pub(super) fn reload_clients(server: &Server, clients: &Path) {
    match load_clients_unless_blank(clients) {
        // Whoever wants to allow nobody can say so in a comment; nothing at all is a writer that has just begun.
        Ok(None) => {
            tracing::warn!(file = %clients.display(), "the list of clients is blank: the old one stays in force");
        }
        Ok(Some(policy)) => {
            server.set_policy(policy);
            tracing::info!(file = %clients.display(), "the list of clients is in force");
            tell(&server.effective_protection());
        }
        Err(error) => {
            tracing::warn!(why = %bowline::net::with_sources(&error), "the old list of clients stays in force");
        }
    }
}

fn tell(effective: &EffectiveProtection) {
    warn_of_clear(effective);
    for fact in facts(effective) {
        tracing::info!("{fact}");
    }
}

/// How data channels are protected at least, one fact a line. The strictest of everything that concerns it stands with
/// each name.
pub(super) fn facts(effective: &EffectiveProtection) -> Vec<String> {
    let exports = effective.exports.iter().map(|(name, least)| format!("export {name} at least {least}"));
    let clients = effective.clients.iter().map(|(name, least)| format!("client {name} at least {least}"));
    let server = format!("data channels at least {}", effective.server);
    std::iter::once(server).chain(exports).chain(clients).collect()
}

/// Nobody should have to find out by looking closely.
pub(super) fn warn_of_clear(effective: &EffectiveProtection) {
    let clear = effective.clients.iter().filter(|(_, least)| **least == Protection::Clear);
    for (client, _) in clear {
        tracing::warn!(
            %client,
            "data channels may be clear: file bytes can be changed on the way unnoticed"
        );
    }
}
