#!/usr/bin/env bash
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Make this host (Debian 12) an OpenStack of its own: Keystone, Glance, Placement, Nova, Neutron and Cinder from the
# distribution. Below them stand drivers that do nothing, shadows: the control plane is real, its machines, networks
# and disks are not. May be run again; what is done already is not done twice.
#
#     control_plane.sh ADDRESS PASSWORD      the administrator's; accounts of the services have it too
set -euo pipefail
ADDRESS=$1 PASSWORD=$2
export DEBIAN_FRONTEND=noninteractive
DONE=/var/lib/control-plane
mkdir -p $DONE

once() { # once NAME COMMAND...: a step that must not be done twice
    [ -e "$DONE/$1" ] && return
    echo "=== $1"
    "${@:2}"
    touch "$DONE/$1"
}

as() { su -s /bin/sh "$1" -c "$2"; }

install_packages() {
    # Services start when they are configured, and not before.
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    printf 'path-exclude /usr/share/%s/*\n' doc locale man > /etc/dpkg/dpkg.cfg.d/slim
    apt-get -qq update
    apt-get -qq --yes --no-install-recommends install mariadb-server rabbitmq-server memcached keystone glance-api \
        placement-api nova-api nova-conductor nova-scheduler nova-compute neutron-server cinder-api cinder-scheduler cinder-volume \
        python3-openstackclient python3-pymysql
    rm /usr/sbin/policy-rc.d
}

start_stores() {
    # Limits that a container cannot raise.
    for unit in rabbitmq-server mariadb epmd; do
        mkdir -p /etc/systemd/system/$unit.service.d
        printf '[Service]\nLimitNOFILE=16384\nOOMScoreAdjust=0\n' > /etc/systemd/system/$unit.service.d/limits.conf
    done
    systemctl daemon-reload
    systemctl enable --now mariadb memcached rabbitmq-server
    for name in keystone glance placement nova_api nova nova_cell0 neutron cinder; do
        mysql -e "CREATE DATABASE IF NOT EXISTS $name; GRANT ALL ON $name.* TO 'openstack'@'localhost' IDENTIFIED BY '$PASSWORD'"
    done
    rabbitmqctl await_startup --timeout 120
    rabbitmqctl add_user openstack "$PASSWORD" || rabbitmqctl change_password openstack "$PASSWORD"
    rabbitmqctl set_permissions openstack '.*' '.*' '.*'
    # Green threads and real ones block each other, so no real ones. Python as the plugin; the profile needs AppArmor.
    sed -i -E 's/^processes *=.*/processes = 3/; s/^threads *=.*/threads = 1/; s/^plugins *=.*/plugins = python3/
        /^apparmor-profile/d' /etc/*/*uwsgi.ini
}

database() { echo "mysql+pymysql://openstack:$PASSWORD@localhost/$1?charset=utf8"; }

account() { # account SECTION USER
    cat <<END
[$1]
auth_url = http://$ADDRESS:5000
www_authenticate_uri = http://$ADDRESS:5000
memcached_servers = 127.0.0.1:11211
auth_type = password
project_domain_name = Default
user_domain_name = Default
region_name = RegionOne
project_name = service
username = $2
password = $PASSWORD
END
}

identity() {
    printf '[database]\nconnection = %s\n[token]\nprovider = fernet\n' "$(database keystone)" > /etc/keystone/keystone.conf
    as keystone 'keystone-manage db_sync'
    keystone-manage fernet_setup --keystone-user keystone --keystone-group keystone
    keystone-manage credential_setup --keystone-user keystone --keystone-group keystone
    keystone-manage bootstrap --bootstrap-password "$PASSWORD" --bootstrap-region-id RegionOne \
        --bootstrap-{admin,internal,public}-url="http://$ADDRESS:5000/v3/"
    systemctl enable --now keystone
    await 5000
}

catalog() {
    ADDRESS=$ADDRESS PASSWORD=$PASSWORD python3 - <<'END'
import os

import openstack

address, password = os.environ["ADDRESS"], os.environ["PASSWORD"]
cloud = openstack.connect(
    auth_url=f"http://{address}:5000/v3", username="admin", password=password, project_name="admin",
    user_domain_name="Default", project_domain_name="Default",
)
identity = cloud.identity
project = identity.find_project("service") or identity.create_project(name="service", domain_id="default")
role = identity.find_role("admin")
services = {
    "nova": ("compute", 8774, "/v2.1"), "placement": ("placement", 8778, ""), "glance": ("image", 9292, ""),
    "neutron": ("network", 9696, ""), "cinder": ("volumev3", 8776, "/v3/%(project_id)s"),
}
for name, (kind, port, path) in services.items():
    user = identity.find_user(name) or identity.create_user(name=name, password=password, domain_id="default")
    identity.assign_project_role_to_user(project, user, role)
    service = identity.find_service(name) or identity.create_service(name=name, type=kind)
    for interface in ("public", "internal", "admin"):
        url = f"http://{address}:{port}{path}"
        identity.create_endpoint(service_id=service.id, interface=interface, url=url, region_id="RegionOne")
END
}

images() {
    {
        printf '[database]\nconnection = %s\n[paste_deploy]\nflavor = keystone\n' "$(database glance)"
        printf '[glance_store]\nstores = file,http\ndefault_store = file\nfilesystem_store_datadir = /var/lib/glance/images/\n'
        account keystone_authtoken glance
    } > /etc/glance/glance-api.conf
    as glance 'glance-manage db_sync'
}

placement() {
    {
        printf '[placement_database]\nconnection = %s\n[api]\nauth_strategy = keystone\n' "$(database placement)"
        account keystone_authtoken placement
    } > /etc/placement/placement.conf
    as placement 'placement-manage db sync'
}

machines() {
    {
        cat <<END
[DEFAULT]
my_ip = $ADDRESS
transport_url = rabbit://openstack:$PASSWORD@127.0.0.1:5672/
osapi_compute_workers = 1
enabled_apis = osapi_compute
compute_driver = shadows.Compute
allow_resize_to_same_host = true
vif_plugging_is_fatal = false
vif_plugging_timeout = 0
state_path = /var/lib/nova
log_dir = /var/log/nova
[api_database]
connection = $(database nova_api)
[database]
connection = $(database nova)
[api]
auth_strategy = keystone
[conductor]
workers = 1
[scheduler]
workers = 1
discover_hosts_in_cells_interval = 10
[glance]
api_servers = http://$ADDRESS:9292
[oslo_concurrency]
lock_path = /var/lib/nova/tmp
[vnc]
enabled = false
[quota]
instances = -1
cores = -1
ram = -1
[filter_scheduler]
track_instance_changes = false
END
        account keystone_authtoken nova
        account placement placement
        account neutron neutron
        account service_user nova
        echo 'send_service_user_token = true'
    } > /etc/nova/nova.conf
    printf '[DEFAULT]\ncompute_driver = shadows.Compute\n' > /etc/nova/nova-compute.conf
    as nova 'nova-manage api_db sync'
    as nova "nova-manage cell_v2 map_cell0 --database_connection '$(database nova_cell0)'"
    as nova 'nova-manage cell_v2 create_cell --name=cell1'
    as nova 'nova-manage db sync'
}

networks() {
    {
        cat <<END
[DEFAULT]
core_plugin = ml2
service_plugins = router
auth_strategy = keystone
transport_url = rabbit://openstack:$PASSWORD@127.0.0.1:5672/
api_workers = 1
rpc_workers = 1
state_path = /var/lib/neutron
[database]
connection = $(database neutron)
[oslo_concurrency]
lock_path = /var/lib/neutron/tmp
[quotas]
quota_port = -1
quota_network = -1
quota_subnet = -1
quota_router = -1
quota_floatingip = -1
quota_security_group = -1
quota_security_group_rule = -1
END
        account keystone_authtoken neutron
        account nova nova
    } > /etc/neutron/neutron.conf
    mkdir -p /etc/neutron/plugins/ml2
    cat > /etc/neutron/plugins/ml2/ml2_conf.ini <<'END'
[ml2]
type_drivers = local,flat
tenant_network_types = local
mechanism_drivers = shadow
extension_drivers = port_security
[ml2_type_flat]
flat_networks = *
END
    as neutron 'neutron-db-manage --config-file /etc/neutron/neutron.conf --config-file /etc/neutron/plugins/ml2/ml2_conf.ini upgrade head' > /dev/null
}

# Below the control plane: what would plug in networks, run machines and keep bytes of disks.
shadows() {
    local place=/usr/lib/python3/dist-packages
    mkdir -p $place/shadows-1.egg-info
    printf 'Metadata-Version: 2.1\nName: shadows\nVersion: 1\n' > $place/shadows-1.egg-info/PKG-INFO
    printf '[neutron.ml2.mechanism_drivers]\nshadow = shadows_neutron:Driver\n' > $place/shadows-1.egg-info/entry_points.txt
    # Neutron's agents want more capabilities than a container has, and there is nothing to plug in.
    cat > $place/shadows_neutron.py <<'END'
from neutron_lib.api.definitions import portbindings
from neutron_lib.plugins.ml2 import api


class Driver(api.MechanismDriver):
    connectivity = portbindings.CONNECTIVITY_L2

    def initialize(self):
        pass

    def bind_port(self, context):
        for segment in context.segments_to_bind:
            context.set_binding(
                segment[api.ID], portbindings.VIF_TYPE_OVS, {portbindings.CAP_PORT_FILTER: False}, status="ACTIVE"
            )
            return

    def check_vlan_transparency(self, context):
        return False
END
    # Nova's own fake driver, but for images: with it they would never have bytes, and never be there. Nova has its drivers here.
    cat > $place/nova/virt/shadows.py <<'END'
import io

from nova.compute import task_states
from nova.image import glance
from nova.virt import fake


class Compute(fake.FakeDriver):
    def snapshot(self, context, instance, image_id, update_task_state):
        update_task_state(task_state=task_states.IMAGE_PENDING_UPLOAD)
        update_task_state(task_state=task_states.IMAGE_UPLOADING, expected_state=task_states.IMAGE_PENDING_UPLOAD)
        wanted = {"disk_format": "raw", "container_format": "bare"}
        glance.API().update(context, image_id, wanted, io.BytesIO(instance.uuid.encode()), purge_props=False)
END
    cat > $place/shadows_cinder.py <<'END'
from cinder import interface
from cinder.volume import driver


@interface.volumedriver
class Driver(driver.VolumeDriver):
    VERSION = "1"

    def do_setup(self, context):
        pass

    def check_for_setup_error(self):
        pass

    def create_volume(self, volume):
        pass

    def delete_volume(self, volume):
        pass

    def extend_volume(self, volume, new_size):
        pass

    def create_export(self, context, volume, connector):
        pass

    def ensure_export(self, context, volume):
        pass

    def remove_export(self, context, volume):
        pass

    def initialize_connection(self, volume, connector):
        return {"driver_volume_type": "fake", "data": {}}

    def terminate_connection(self, volume, connector, **_more):
        pass

    def _update_volume_stats(self):
        self._stats = {
            "volume_backend_name": "shadow", "vendor_name": "shadow", "driver_version": "1", "storage_protocol": "fake",
            "total_capacity_gb": "infinite", "free_capacity_gb": "infinite",
        }
END
}

disks() {
    {
        cat <<END
[DEFAULT]
my_ip = $ADDRESS
transport_url = rabbit://openstack:$PASSWORD@127.0.0.1:5672/
auth_strategy = keystone
enabled_backends = shadow
osapi_volume_workers = 1
state_path = /var/lib/cinder
quota_volumes = -1
quota_gigabytes = -1
[shadow]
volume_driver = shadows_cinder.Driver
volume_backend_name = shadow
[database]
connection = $(database cinder)
[oslo_concurrency]
lock_path = /var/lib/cinder/tmp
END
        account keystone_authtoken cinder
        printf 'service_token_roles = admin\nservice_token_roles_required = true\n'
    } > /etc/cinder/cinder.conf
    as cinder 'cinder-manage db sync'
}

# What an operator offers: a way out, sizes, and the image of a distribution.
offers() {
    ADDRESS=$ADDRESS PASSWORD=$PASSWORD python3 - <<'END'
import os

import openstack

address, password = os.environ["ADDRESS"], os.environ["PASSWORD"]
cloud = openstack.connect(
    auth_url=f"http://{address}:5000/v3", username="admin", password=password, project_name="admin",
    user_domain_name="Default", project_domain_name="Default", region_name="RegionOne",
)
for name, processors, memory in (("m1.small", 2, 2048), ("m1.medium", 2, 4096), ("m1.large", 4, 8192)):
    if not cloud.compute.find_flavor(name):
        cloud.compute.create_flavor(name=name, vcpus=processors, ram=memory, disk=20)
if not cloud.network.find_network("internet"):
    outside = cloud.network.create_network(
        name="internet", is_router_external=True, provider_network_type="flat", provider_physical_network="internet"
    )
    cloud.network.create_subnet(
        network_id=outside.id, ip_version=4, cidr="203.0.113.0/24", name="internet", is_dhcp_enabled=False
    )
if not cloud.image.find_image("debian-12-generic"):
    cloud.create_image(
        "debian-12-generic", data=b"shadow", disk_format="raw", container_format="bare", visibility="public", wait=True
    )
END
}

start() {
    systemctl enable --now glance-api placement-api nova-api nova-conductor nova-scheduler nova-compute neutron-api neutron-rpc-server \
        cinder-api cinder-scheduler cinder-volume
    for port in 9292 8778 8774 9696 8776; do
        await $port
    done
    for _try in $(seq 30); do
        as nova 'nova-manage cell_v2 discover_hosts --by-service' | grep -q . || true
        [ "$(mysql -N -e 'SELECT count(*) FROM nova_api.host_mappings')" -gt 0 ] && return
        sleep 1
    done
    echo "Nova has no host" >&2
    return 1
}

await() {
    for _try in $(seq 90); do
        curl --silent --output /dev/null "http://$ADDRESS:$1/" && return
        sleep 1
    done
    echo "nothing answers on port $1" >&2
    return 1
}

once packages install_packages
once stores start_stores
once keystone identity
once catalog catalog
once glance images
once placement placement
once nova machines
once shadows shadows
once neutron networks
once cinder disks
start
once offers offers
