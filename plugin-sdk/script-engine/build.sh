#!/usr/bin/env bash
# Makes engine.wasm from source. With --check: the same toolchain must make the same bytes; another
# one's are put in place, so that the tests that follow are run on them.
set -euo pipefail
cd "$(dirname "$0")"
target=wasm32-unknown-unknown
made=${CARGO_TARGET_DIR:-target}
rustup target add "$target" 2> /dev/null
export CC_wasm32_unknown_unknown=${CC_wasm32_unknown_unknown:-$(command -v clang-14 || command -v clang)}
export AR_wasm32_unknown_unknown=${AR_wasm32_unknown_unknown:-$(command -v llvm-ar-14 || command -v llvm-ar)}
toolchain="$(rustc --version), $("$CC_wasm32_unknown_unknown" --version | head -n 1)"
# Where sources lie on this machine is nobody's business.
flags="--remap-path-prefix=$PWD=script-engine"
cargo fetch --locked --target "$target" --quiet
for registry in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
  flags="$flags --remap-path-prefix=$registry=crates"
done
RUSTFLAGS=$flags cargo build --locked --release --target "$target" --target-dir "$made"
built="$made/$target/release/script_engine.wasm"
if [ "${1:-}" = --check ] && [ "$toolchain" = "$(cat engine.toolchain)" ]; then
  cmp "$built" engine.wasm || { echo "engine.wasm is stale: run plugin-sdk/script-engine/build.sh" >&2; exit 1; }
  echo "engine.wasm is what its source makes"
  exit
fi
cp "$built" engine.wasm
echo "$toolchain" > engine.toolchain
echo "engine.wasm made by $toolchain"
