//! Says which ciphers the build has, where it has fewer than it could have.

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    if std::env::var_os("CARGO_FEATURE_AEGIS").is_none() {
        println!(
            "cargo::warning=built without AEGIS: data channels use ChaCha20-Poly1305, which costs several times more \
             processor time. The feature `aegis` is on by default and needs a C compiler"
        );
    }
}
