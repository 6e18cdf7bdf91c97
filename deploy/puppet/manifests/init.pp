# emupin on a hypervisor: the package, the policy (validated before it replaces the one in force), and doctor's word.
#
# @param policy the policy's text, for example file('profile/emupin-policy.yaml')
class emupin (
  String[1] $policy,
  String[1] $ensure = 'installed',
) {
  package { 'emupin':
    ensure => $ensure,
  }

  file { '/etc/emupin/policy.yaml':
    ensure       => file,
    owner        => 'root',
    group        => 'root',
    mode         => '0644',
    content      => $policy,
    validate_cmd => '/usr/bin/emupin policy check --policy %',
    require      => Package['emupin'],
  }

  exec { 'emupin doctor':
    path        => ['/usr/bin', '/bin'],
    refreshonly => true,
    subscribe   => [Package['emupin'], File['/etc/emupin/policy.yaml']],
  }
}
