"""The admin edge's page for people: the hub as HTML, with nothing from elsewhere.

    view            what was asked for: which agents, in which order
    document        the whole page, and what it may do in a browser
    layout          style, script, frame
    findings        what matters, in words
    picture         the cluster, drawn
    curves          the last quarter of an hour
    agents, tables  rows and columns
    hubs            hubs and links as one list, for the command line, too
    markup          text that cannot become anything else

Everything in it is made on the hub; the one script only puts newer pieces in the place of older ones. Without it the
page loads itself again.
"""
