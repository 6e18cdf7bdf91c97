# emupin on a hypervisor: the package, the policy (validated before it replaces the one in force), and doctor's word.
emupin:
  pkg.installed: []

/etc/emupin/policy.yaml:
  file.managed:
    - source: salt://emupin/policy.yaml
    - user: root
    - group: root
    - mode: '0644'
    - check_cmd: emupin policy check --policy
    - tmp_ext: .yaml
    - require:
      - pkg: emupin

emupin doctor:
  cmd.run:
    - onchanges:
      - pkg: emupin
      - file: /etc/emupin/policy.yaml
