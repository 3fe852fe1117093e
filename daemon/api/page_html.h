/* daemon/api/page.html as scripts/embed-page makes it part of the binary. */
#ifndef BREAKERD_PAGE_HTML_H
#define BREAKERD_PAGE_HTML_H

/* "yes" or "no" stands between the two: whether a token is asked for. */
extern const char page_before_token[];
extern const char page_after_token[];
/* Its Content-Security-Policy. */
extern const char page_policy[];

#endif
