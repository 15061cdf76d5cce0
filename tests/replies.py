"""Mail bodies as mail programs write them, each with the words that its sender typed: all invented, typed by hand."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """own: what the sender wrote. quoted: the beginning of what they answer; "" where the mail quotes nothing."""

    body: str
    own: str
    quoted: str = ""


SIGNED = """Hi Tom,

the pump is fixed. Can you check the pressure tomorrow?

Cheers,
Mara"""

ANSWER = "Thursday works for me. I'll bring the drawings.\n\nMara"  # of many replies

REPLIES = {
    "a plain mail": Reply(SIGNED, SIGNED),
    "a plain reply below Gmail's line": Reply(
        f"{ANSWER}\n\nOn Tue, Mar 4, 2025 at 10:12 AM Tom Berg <tom@berg.example> wrote:\n\n"
        "> Shall we meet on Thursday?\n> I have the afternoon.\n>\n> Tom\n",
        ANSWER,
        "Shall we meet on Thursday?",
    ),
    "a line of attribution that was wrapped": Reply(
        f"{ANSWER}\n\nOn Tue, Mar 4, 2025 at 10:12 AM Tom Berg von und zu Hohenfels\n"
        "<tom.berg@hohenfels.example> wrote:\n\n> Shall we meet on Thursday?\n",
        ANSWER,
        "Shall we meet on Thursday?",
    ),
    "an inline reply": Reply(
        "On 04/03/2025 10:12, Tom Berg wrote:\n> Is the pump fixed?\n\nYes, since Monday.\n\n"
        "> And the valve?\n> It dripped again.\n\nNot yet, the seal is on order.\n\nMara\n",
        "Yes, since Monday.\n\nNot yet, the seal is on order.\n\nMara",
        "Is the pump fixed?",
    ),
    "an inline reply with a greeting above": Reply(
        "Hi Tom,\n\nanswers below.\n\nOn 04/03/2025 10:12, Tom Berg wrote:\n> Is the pump fixed?\n\n"
        "Yes, since Monday.\n",
        "Hi Tom,\n\nanswers below.\n\nYes, since Monday.",
        "Is the pump fixed?",
    ),
    "a bottom-posted reply": Reply(
        f"Tom Berg <tom@berg.example> writes:\n\n> Shall we meet\n> on Thursday?\n\n{ANSWER}\n",
        ANSWER,
        "Shall we meet on Thursday?",
    ),
    "a top-posted reply whose quote is not marked": Reply(
        f"{ANSWER}\n\nOn Tue, Mar 4, 2025 at 10:12 AM Tom Berg <tom@berg.example> wrote:\n\n"
        "Shall we meet on Thursday?\n\nI have the afternoon.\n\nTom\n",
        ANSWER,
        "Shall we meet on Thursday?",
    ),
    "Outlook's block of headers": Reply(
        f"{ANSWER}\n\n________________________________\nFrom: Tom Berg <tom@berg.example>\n"
        f"Sent: Tuesday, March 4, 2025 "
        "10:12 AM\nTo: Mara Lind <mara@lind.example>\nCc: Ina Roth\nSubject: Thursday\n\nShall we meet on Thursday?\n",
        ANSWER,
        "Shall we meet on Thursday?",
    ),
    "Outlook's block in bold": Reply(
        f"{ANSWER}\n\n*From:* Tom Berg <tom@berg.example>\n*Sent:* Tuesday, March 4, 2025 10:12 AM\n*To:* Mara Lind\n"
        "*Subject:* Thursday\n\nShall we meet on Thursday?\n",
        ANSWER,
        "Shall we meet on Thursday?",
    ),
    "the original message below a rule": Reply(
        f"{ANSWER}\n\n-----Original Message-----\nFrom: Tom Berg\nSent: Tuesday, March 4, 2025 10:12 AM\n"
        f"To: Mara Lind\n"
        "Subject: Thursday\n\nShall we meet on Thursday?\n",
        ANSWER,
        "Shall we meet on Thursday?",
    ),
    "a German line": Reply(
        "Hallo Tom,\n\nam Donnerstag passt es mir gut.\n\nViele Grüße\nMara\n\n"
        "Am Di., 4. März 2025 um 10:12 Uhr schrieb Tom Berg <tom@berg.example>:\n\n> Treffen wir uns am Donnerstag?\n",
        "Hallo Tom,\n\nam Donnerstag passt es mir gut.\n\nViele Grüße\nMara",
        "Treffen wir uns am Donnerstag?",
    ),
    "a German block": Reply(
        "Passt, bis Donnerstag!\n\nLG Mara\n\nVon: Tom Berg <tom@berg.example>\n"
        "Gesendet: Dienstag, 4. März 2025 10:12\n"
        "An: Mara Lind\nBetreff: Donnerstag\n\nTreffen wir uns am Donnerstag?\n",
        "Passt, bis Donnerstag!\n\nLG Mara",
        "Treffen wir uns am Donnerstag?",
    ),
    "a German original message": Reply(
        "Passt, bis Donnerstag!\n\n-----Ursprüngliche Nachricht-----\nVon: Tom Berg\nGesendet: Dienstag, 4. März 2025\n"
        "An: Mara Lind\nBetreff: Donnerstag\n\nTreffen wir uns?\n",
        "Passt, bis Donnerstag!",
        "Treffen wir uns?",
    ),
    "a French line": Reply(
        "Bonjour Tom,\n\njeudi me convient parfaitement.\n\nAmitiés,\nMara\n\n"
        "Le mar. 4 mars 2025 à 10:12, Tom Berg <tom@berg.example> a écrit :\n\n> On se voit jeudi ?\n",
        "Bonjour Tom,\n\njeudi me convient parfaitement.\n\nAmitiés,\nMara",
        "On se voit jeudi ?",
    ),
    "a French block": Reply(
        "Jeudi, c'est parfait.\n\nDe : Tom Berg <tom@berg.example>\nEnvoyé : mardi 4 mars 2025 10:12\nÀ : Mara Lind\n"
        "Objet : jeudi\n\nOn se voit jeudi ?\n",
        "Jeudi, c'est parfait.",
        "On se voit jeudi ?",
    ),
    "a Spanish line": Reply(
        "El jueves me viene bien.\n\nUn abrazo,\nMara\n\n"
        "El mar, 4 mar 2025 a las 10:12, Tom Berg (<tom@berg.example>) escribió:\n\n> ¿Nos vemos el jueves?\n",
        "El jueves me viene bien.\n\nUn abrazo,\nMara",
        "¿Nos vemos el jueves?",
    ),
    "a Spanish block": Reply(
        "El jueves me viene bien.\n\nDe: Tom Berg <tom@berg.example>\nEnviado el: martes, 4 de marzo de 2025 10:12\n"
        "Para: Mara Lind\nAsunto: jueves\n\n¿Nos vemos el jueves?\n",
        "El jueves me viene bien.",
        "¿Nos vemos el jueves?",
    ),
    "an Italian line": Reply(
        "Giovedì va benissimo.\n\nA presto,\nMara\n\n"
        "Il giorno mar 4 mar 2025 alle ore 10:12 Tom Berg <tom@berg.example> ha scritto:\n\n> Ci vediamo giovedì?\n",
        "Giovedì va benissimo.\n\nA presto,\nMara",
        "Ci vediamo giovedì?",
    ),
    "an Italian block": Reply(
        "Giovedì va benissimo.\n\nDa: Tom Berg <tom@berg.example>\nInviato: martedì 4 marzo 2025 10:12\nA: Mara Lind\n"
        "Oggetto: giovedì\n\nCi vediamo giovedì?\n",
        "Giovedì va benissimo.",
        "Ci vediamo giovedì?",
    ),
    "a Portuguese line": Reply(
        "Quinta está ótimo para mim.\n\nEm ter., 4 de mar. de 2025 às 10:12, Tom Berg <tom@berg.example>\nescreveu:\n\n"
        "> Nos vemos na quinta?\n",
        "Quinta está ótimo para mim.",
        "Nos vemos na quinta?",
    ),
    "a Portuguese block": Reply(
        "Quinta está ótimo para mim.\n\nDe: Tom Berg <tom@berg.example>\nEnviada em: terça-feira, 4 de março de 2025\n"
        "Para: Mara Lind\nAssunto: quinta\n\nNos vemos na quinta?\n",
        "Quinta está ótimo para mim.",
        "Nos vemos na quinta?",
    ),
    "a Dutch line": Reply(
        "Donderdag is prima.\n\nGroetjes,\nMara\n\nOp di 4 mrt 2025 om 10:12 schreef Tom Berg <tom@berg.example>:\n\n"
        "> Zien we elkaar donderdag?\n",
        "Donderdag is prima.\n\nGroetjes,\nMara",
        "Zien we elkaar donderdag?",
    ),
    "a Dutch block": Reply(
        "Donderdag is prima.\n\nVan: Tom Berg <tom@berg.example>\nVerzonden: dinsdag 4 maart 2025 10:12\n"
        "Aan: Mara Lind\n"
        "Onderwerp: donderdag\n\nZien we elkaar donderdag?\n",
        "Donderdag is prima.",
        "Zien we elkaar donderdag?",
    ),
    "a Swedish line": Reply(
        "Torsdag blir bra.\n\nHälsningar\nMara\n\nDen tis 4 mars 2025 kl 10:12 skrev Tom Berg <tom@berg.example>:\n\n"
        "> Ses vi på torsdag?\n",
        "Torsdag blir bra.\n\nHälsningar\nMara",
        "Ses vi på torsdag?",
    ),
    "a Danish block": Reply(
        "Torsdag er fint.\n\nFra: Tom Berg <tom@berg.example>\nSendt: 4. marts 2025 10:12\nTil: Mara Lind\n"
        "Emne: torsdag\n\nSes vi torsdag?\n",
        "Torsdag er fint.",
        "Ses vi torsdag?",
    ),
    "a Norwegian line": Reply(
        "Torsdag passer bra.\n\ntir. 4. mars 2025 kl. 10:12 skrev Tom Berg <tom@berg.example>:\n\n> Sees vi torsdag?\n",
        "Torsdag passer bra.",
        "Sees vi torsdag?",
    ),
    "a Finnish line": Reply(
        "Torstai sopii hyvin.\n\nti 4. maalisk. 2025 klo 10.12 Tom Berg (tom@berg.example) kirjoitti:\n\n"
        "> Nähdäänkö torstaina?\n",
        "Torstai sopii hyvin.",
        "Nähdäänkö torstaina?",
    ),
    "a Polish line": Reply(
        "Czwartek mi pasuje.\n\nPozdrawiam\nMara\n\nwt., 4 mar 2025 o 10:12 Tom Berg <tom@berg.example> napisał(a):\n\n"
        "> Spotkamy się w czwartek?\n",
        "Czwartek mi pasuje.\n\nPozdrawiam\nMara",
        "Spotkamy się w czwartek?",
    ),
    "a Czech line": Reply(
        "Čtvrtek se mi hodí.\n\nút 4. 3. 2025 v 10:12 odesílatel Tom Berg <tom@berg.example> napsal:\n\n"
        "> Sejdeme se ve čtvrtek?\n",
        "Čtvrtek se mi hodí.",
        "Sejdeme se ve čtvrtek?",
    ),
    "a Russian line": Reply(
        "В четверг мне удобно.\n\nвт, 4 мар. 2025 г. в 10:12, Tom Berg <tom@berg.example>:\n\n"
        "> Встретимся в четверг?\n",
        "В четверг мне удобно.",
        "Встретимся в четверг?",
    ),
    "a Russian block": Reply(
        "В четверг мне удобно.\n\nОт: Tom Berg <tom@berg.example>\nОтправлено: 4 марта 2025 г. 10:12\nКому: Mara Lind\n"
        "Тема: четверг\n\nВстретимся в четверг?\n",
        "В четверг мне удобно.",
        "Встретимся в четверг?",
    ),
    "a Turkish line": Reply(
        "Perşembe bana uyar.\n\nTom Berg <tom@berg.example>, 4 Mar 2025 Sal, 10:12 tarihinde şunu yazdı:\n\n"
        "> Perşembe görüşelim mi?\n",
        "Perşembe bana uyar.",
        "Perşembe görüşelim mi?",
    ),
    "a Japanese line": Reply(
        "木曜日で大丈夫です。\n\n2025年3月4日(火) 10:12 Tom Berg <tom@berg.example>:\n\n> 木曜日に会えますか?\n",
        "木曜日で大丈夫です。",
        "木曜日に会えますか?",
    ),
    "a Chinese line": Reply(
        "星期四可以。\n\nTom Berg <tom@berg.example> 于2025年3月4日周二 10:12写道：\n\n> 星期四见面好吗?\n",
        "星期四可以。",
        "星期四见面好吗?",
    ),
    "a Chinese block": Reply(
        "星期四可以。\n\n"
        "发件人：Tom Berg <tom@berg.example>\n发送时间：2025年3月4日 10:12\n收件人：Mara Lind\n主题：星期四\n"
        "\n星期四见面好吗?\n",
        "星期四可以。",
        "星期四见面好吗?",
    ),
    "a Korean line": Reply(
        "목요일 좋아요.\n\n2025년 3월 4일 (화) 오전 10:12, Tom Berg <tom@berg.example>님이 작성:\n\n"
        "> 목요일에 만날까요?\n",
        "목요일 좋아요.",
        "목요일에 만날까요?",
    ),
    "a Hungarian line": Reply(
        f"{ANSWER}\n\nTom Berg <tom@berg.example> ezt írta (időpont: 2025. márc. 4., K, 10:12):\n\n> Csütörtökön?\n",
        ANSWER,
        "Csütörtökön?",
    ),
    "a Hebrew line with marks of direction": Reply(
        f"{ANSWER}\n\nבתאריך יום ג׳, 4 במרץ 2025 ב-10:12 מאת \u202aTom Berg\u202c <\u202atom@berg.example\u202c>:\u202c"
        "\n\n> Thursday?\n",
        ANSWER,
        "Thursday?",
    ),
    "a line that is quoted itself": Reply(
        f"{ANSWER}\n\nSent from my iPhone\n\n"
        "> On 4 Mar 2025, at 10:12, Tom Berg <tom@berg.example> wrote:\n> \n> Thursday?\n",
        ANSWER,
        "Thursday?",
    ),
    "a line below the answer with no gap": Reply(
        f"{ANSWER}\nOn 3/4/25 10:12 AM, Tom Berg wrote:\n> Thursday?\n", ANSWER, "Thursday?"
    ),
    "a web mailer's block": Reply(
        f"{ANSWER}\n \n\nGesendet: Dienstag, 04. März 2025 um 10:12 Uhr\nVon: Tom Berg <tom@berg.example>\n"
        "An: mara@lind.example\nBetreff: Donnerstag\n\nDonnerstag?\n",
        ANSWER,
        "Donnerstag?",
    ),
    "a tagline above a block": Reply(
        f"{ANSWER}\n\nHolen Sie sich Outlook für iOS<https://aka.example/x>\n________________________________\n"
        "Von: Tom Berg <tom@berg.example>\nGesendet: Tuesday, March 4, 2025 10:12 AM\nAn: Mara Lind\n"
        "Betreff: Re: x\n\nWann?\n",
        ANSWER,
        "Wann?",
    ),
    "a footer of GitHub": Reply(
        f"{ANSWER}\n\n—\nReply to this email directly, view it on GitHub, or unsubscribe.\n", ANSWER
    ),
    "a list with hyphens": Reply(
        "Hi Tom,\n\nstill missing:\n\n- the seal for valve 3\n- two gaskets\n-one hose, 2 m\n\n"
        "Can you order them?\n\nMara\n",
        "Hi Tom,\n\nstill missing:\n\n- the seal for valve 3\n- two gaskets\n-one hose, 2 m\n\n"
        "Can you order them?\n\nMara",
    ),
    "sections below rules": Reply(
        "Monday\n------\nThe pump runs.\n\n---\n\nTuesday\n-------\nIt leaks again, so I closed the valve.\n",
        "Monday\n------\nThe pump runs.\n\n---\n\nTuesday\n-------\nIt leaks again, so I closed the valve.",
    ),
    "a signature below its line": Reply(
        f"{SIGNED}\n\n-- \nMara Lind\nLind Pumps, 12 Mill Lane\nTel. +49 30 1234567\n",
        SIGNED,
    ),
    "a signature whose line lost its space": Reply(f"{SIGNED}\n\n--\nMara Lind | Lind Pumps\n", SIGNED),
    "a signature above the quote": Reply(
        f"{ANSWER}\n\n-- \nMara Lind\nLind Pumps\n\nOn Tue, Mar 4, 2025 at 10:12 AM Tom Berg wrote:\n\n> Thursday?\n",
        ANSWER,
        "Thursday?",
    ),
    "a business card below the sign-off": Reply(
        "The offer is attached.\n\nKind regards,\nMara Lind\n\nMara Lind\nHead of Service\nLind Pumps GmbH\n"
        "Tel: +49 30 1234567\nwww.lind.example\n",
        "The offer is attached.\n\nKind regards,\nMara Lind",
    ),
    "a telephone's tagline": Reply("On my way, ten minutes.\n\nSent from my iPhone\n", "On my way, ten minutes."),
    "a German telephone's tagline": Reply(
        "Bin gleich da, zehn Minuten.\n\nVon meinem iPhone gesendet\n\n"
        "Am 04.03.2025 um 10:12 schrieb Tom Berg:\n> Wo bist du?\n",
        "Bin gleich da, zehn Minuten.",
        "Wo bist du?",
    ),
    "an Outlook tagline": Reply(
        "Will do, thanks!\n\nGet Outlook for Android<https://aka.example/x>\n", "Will do, thanks!"
    ),
    "a forward with a word": Reply(
        "Tom, can you answer this? I am away.\n\nMara\n\n---------- Forwarded message ---------\n"
        "From: Ina Roth <ina@roth.example>\nDate: Tue, Mar 4, 2025 at 10:12 AM\nSubject: Offer\nTo: Mara Lind\n\n"
        "Dear Mara, may I have your offer?\n",
        "Tom, can you answer this? I am away.\n\nMara",
        "Dear Mara, may I have your offer?",
    ),
    "a forward alone": Reply(
        "---------- Forwarded message ---------\nFrom: Ina Roth <ina@roth.example>\nDate: Tue, Mar 4, 2025\n"
        "Subject: Offer\nTo: Mara Lind\n\nDear Mara, may I have your offer?\n",
        "",
        "Dear Mara, may I have your offer?",
    ),
    "Apple's forward": Reply(
        "Please see below.\n\nBegin forwarded message:\n\n> From: Ina Roth <ina@roth.example>\n> Subject: Offer\n"
        "> Date: 4 March 2025\n>\n> Dear Mara, may I have your offer?\n",
        "Please see below.",
        "Dear Mara, may I have your offer?",
    ),
    "a German forward": Reply(
        "Kannst du das bitte übernehmen?\n\n-------- Weitergeleitete Nachricht --------\nBetreff: Angebot\n"
        "Datum: Di, 4 Mär 2025\nVon: Ina Roth <ina@roth.example>\nAn: Mara Lind\n\n"
        "Liebe Mara, schickst du das Angebot?\n",
        "Kannst du das bitte übernehmen?",
        "Liebe Mara, schickst du das Angebot?",
    ),
    "a disclaimer": Reply(
        f"{SIGNED}\n\nThis e-mail and any attachments are confidential and intended solely for the addressee. "
        f"If you are "
        "not the\nintended recipient, please delete it and tell the sender.\n",
        SIGNED,
    ),
    "a disclaimer with a title": Reply(
        f"{SIGNED}\n\nCONFIDENTIALITY NOTICE: The contents of this message may be privileged.\n", SIGNED
    ),
    "a German disclaimer": Reply(
        "Anbei das Angebot.\n\nGruß, Mara\n\n"
        "Diese E-Mail enthält vertrauliche Informationen. Wenn Sie nicht der richtige "
        "Adressat sind,\nvernichten Sie bitte diese Mail.\n",
        "Anbei das Angebot.\n\nGruß, Mara",
    ),
    "a French disclaimer": Reply(
        "Voici le devis.\n\nMara\n\nCe message et toutes les pièces jointes sont confidentiels et établis à "
        "l'intention "
        "exclusive de ses destinataires.\n",
        "Voici le devis.\n\nMara",
    ),
    "a plea for trees": Reply(f"{SIGNED}\n\nPlease consider the environment before printing this email.\n", SIGNED),
    "a mailing list's footer": Reply(
        "The patch works for me, thanks.\n\nMara\n\n_______________________________________________\n"
        "pumps mailing list\npumps@lists.example\nhttps://lists.example/mailman/listinfo/pumps\n",
        "The patch works for me, thanks.\n\nMara",
    ),
    "what looks like a line of attribution": Reply(
        "On Monday I wrote:\n\nthe pump is fixed. Today I must add that it is not.\n",
        "On Monday I wrote:\n\nthe pump is fixed. Today I must add that it is not.",
    ),
    "a colon before a list": Reply(
        "Two dates for the check at 10:12 would be:\n\n- 4 March 2025\n- 6 March 2025\n\nWhich one?\n",
        "Two dates for the check at 10:12 would be:\n\n- 4 March 2025\n- 6 March 2025\n\nWhich one?",
    ),
    "fields that are no headers": Reply(
        "Here is the order.\n\nPart: seal\nTo: Mill Lane\nNumber: 12\n\nPlease confirm.\n",
        "Here is the order.\n\nPart: seal\nTo: Mill Lane\nNumber: 12\n\nPlease confirm.",
    ),
    "a journey": Reply(
        "Your ticket:\n\nFrom: Berlin\nTo: Hamburg\nDate: 4 March 2025\n\nHave a good trip.\n",
        "Your ticket:\n\nFrom: Berlin\nTo: Hamburg\nDate: 4 March 2025\n\nHave a good trip.",
    ),
    "a confidential word in the middle": Reply(
        "This message is confidential, Tom, so keep it to yourself.\n\nWe close the mill in June.\n\nMara\n",
        "This message is confidential, Tom, so keep it to yourself.\n\nWe close the mill in June.\n\nMara",
    ),
    "an arrow that is no quote": Reply(
        "Set the level like this:\n\nlevel > 3 and temperature > 80\n\nThen it runs.\n",
        "Set the level like this:\n\nlevel > 3 and temperature > 80\n\nThen it runs.",
    ),
    "a reply to a reply": Reply(
        f"{ANSWER}\n\nOn Tue, Mar 4, 2025 at 10:12 AM Tom Berg <tom@berg.example> wrote:\n\n> Thursday then?\n>\n"
        "> On Mon, Mar 3, 2025 at 9:00 AM Mara Lind wrote:\n>\n>> When can you come?\n",
        ANSWER,
        "Thursday then?",
    ),
    "a postscript": Reply(
        "The valve is closed.\n\nCheers, Mara\n\nPS: bring the torch, it is dark down there.\n",
        "The valve is closed.\n\nCheers, Mara\n\nPS: bring the torch, it is dark down there.",
    ),
}
