# fish completion for meshctl; write it to ~/.config/fish/completions/meshctl.fish,
# or load it with: meshctl completion fish | source
function __meshctl_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete $words[2..-1] 2>/dev/null
end
complete -c meshctl -f -a '(__meshctl_complete)'
complete -c meshctl -l socket -r -F
