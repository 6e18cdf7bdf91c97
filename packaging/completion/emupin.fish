# emupin: completion for fish, by argcomplete (python3-argcomplete), which asks the command itself
if type -q register-python-argcomplete
    register-python-argcomplete --shell fish emupin | source
else if type -q register-python-argcomplete3
    register-python-argcomplete3 --shell fish emupin | source
end
