"""``headrace setup``: what a cluster needs before its roles can start. One-shot, and to be run again at will.

    files    authority and certificates, tokens, passwords: a folder for each role, which sees no other
    kafka    users, topics with their limits, and who may do what, through a listener that only setup reaches

docker-compose.yml runs both before the roles; docs/cluster.md tells how they are renewed.
"""
