# emupin: completion for bash, by argcomplete (python3-argcomplete), which asks the command itself
if command -v register-python-argcomplete >/dev/null 2>&1; then
    eval "$(register-python-argcomplete emupin)"
elif command -v register-python-argcomplete3 >/dev/null 2>&1; then
    eval "$(register-python-argcomplete3 emupin)"
fi
