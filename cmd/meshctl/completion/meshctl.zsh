#compdef meshctl
# zsh completion for meshctl; write it to a file named _meshctl on $fpath, or
# load it with: source <(meshctl completion zsh)
_meshctl() {
    local -a candidates
    candidates=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    candidates=(${candidates:#})
    if (( ${#candidates} )); then
        compadd -- "${candidates[@]}"
    else
        _files
    fi
}
if [ "${funcstack[1]}" = "_meshctl" ]; then
    _meshctl "$@"
else
    compdef _meshctl meshctl
fi
