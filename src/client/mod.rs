//! What applications embed.
